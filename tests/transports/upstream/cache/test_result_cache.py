"""What may be kept, for whom and how long. Source: MCP 2026-07-28, server/utilities/caching."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.revisions import CACHEABLE_METHODS
from mcp_gateway.transports.upstream.cache.result_cache import ResultCache, cache_key


def result(**members: Any) -> bytes:
    return json.dumps({"resultType": "complete", "tools": [], **members}).encode()


def key(method: str = "tools/list", **params: Any) -> Any:
    found = cache_key(method, json.dumps(params).encode() if params else b"")
    assert found is not None
    return found


PUBLIC = result(ttlMs=5_000, cacheScope="public")
PRIVATE = result(ttlMs=5_000, cacheScope="private")


# ---- what identifies a request


def test_the_order_of_members_the_meta_and_the_spelling_do_not_tell_requests_apart() -> None:
    one = cache_key("resources/read", rb'{"uri":"a:b","x":{"c":1,"d":2},"_meta":{"progressToken":1}}')
    two = cache_key("resources/read", rb'{"x":{"d":2,"c":1},"uri":"\u0061:b"}')
    assert one == two
    assert cache_key("tools/list", b"") == cache_key("tools/list", b"{}")


def test_methods_parameters_and_pages_do() -> None:
    keys = [key("tools/list"), key("prompts/list"), key("tools/list", cursor="2")]
    keys += [key("resources/read", uri="a"), key("resources/read", uri="b")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "completion/complete", "subscriptions/listen", "initialize"])
def test_other_methods_are_never_kept(method: str) -> None:
    assert cache_key(method, b"{}") is None


@pytest.mark.parametrize("member", ["inputResponses", "requestState"])
def test_a_retry_with_input_is_never_kept(member: str) -> None:
    assert cache_key("resources/read", json.dumps({"uri": "a", member: "x"}).encode()) is None


# ---- scope


def test_a_public_result_is_for_everybody() -> None:
    cache = ResultCache()
    assert cache.keep(key(), "ada", PUBLIC, 0.0)
    for principal in ("ada", "bob", ""):
        assert cache.find(key(), principal, 1.0) is not None


def test_a_private_result_is_for_the_one_who_asked_and_for_nobody_who_is_not_known() -> None:
    cache = ResultCache()
    assert cache.keep(key(), "ada", PRIVATE, 0.0)
    assert not cache.keep(key(), "", PRIVATE, 0.0)
    assert cache.find(key(), "ada", 1.0) is not None
    assert cache.find(key(), "bob", 1.0) is None
    assert cache.find(key(), "", 1.0) is None


def test_a_result_without_a_scope_is_taken_for_private() -> None:
    assert not ResultCache().keep(key(), "", result(ttlMs=1_000), 0.0)
    assert not ResultCache().keep(key(), "", result(ttlMs=1_000, cacheScope="shared"), 0.0)


# ---- time


def test_a_result_is_fresh_for_its_time_and_tells_what_is_left_of_it() -> None:
    cache = ResultCache()
    cache.keep(key(), "", PUBLIC, 10.0)
    found = cache.find(key(), "", 13.0)
    assert found is not None
    assert json.loads(found) == {**json.loads(PUBLIC), "ttlMs": 2_000}
    assert cache.find(key(), "", 15.0) is None
    assert len(cache) == 0


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"cacheScope": "public"},
        {"cacheScope": "public", "ttlMs": 0},
        {"cacheScope": "public", "ttlMs": -5},
        {"cacheScope": "public", "ttlMs": "5"},
        {"cacheScope": "public", "ttlMs": True},
        {"cacheScope": "public", "ttlMs": 1.5},
        {"cacheScope": "public", "ttlMs": 5_000, "resultType": "input_required"},
    ],
)
def test_what_has_no_time_to_live_is_not_kept(members: dict[str, Any]) -> None:
    cache = ResultCache()
    assert not cache.keep(key(), "ada", result(**members), 0.0)
    assert len(cache) == 0


def test_nothing_is_kept_for_longer_than_a_day() -> None:
    cache = ResultCache()
    cache.keep(key(), "", result(ttlMs=10**15, cacheScope="public"), 0.0)
    assert cache.find(key(), "", 86_399.0) is not None
    assert cache.find(key(), "", 86_401.0) is None


# ---- changes


@pytest.mark.parametrize(
    ("notification", "stale"),
    [
        ("notifications/tools/list_changed", {"tools/list"}),
        ("notifications/prompts/list_changed", {"prompts/list"}),
        ("notifications/resources/list_changed", {"resources/list", "resources/templates/list"}),
        ("notifications/progress", set()),
    ],
)
def test_a_change_makes_stale_what_shows_it_and_nothing_else(notification: str, stale: set[str]) -> None:
    cache = ResultCache()
    for method in CACHEABLE_METHODS:
        cache.keep(key(method), "", PUBLIC, 0.0)
    cache.note_change(notification, b"")
    assert {method for method in CACHEABLE_METHODS if cache.find(key(method), "", 1.0) is None} == stale


def test_an_updated_resource_is_read_again_and_others_are_not() -> None:
    cache = ResultCache()
    for uri in ("a", "b"):
        cache.keep(key("resources/read", uri=uri), "", PUBLIC, 0.0)
    cache.note_change("notifications/resources/updated", b'{"uri":"a"}')
    assert cache.find(key("resources/read", uri="a"), "", 1.0) is None
    assert cache.find(key("resources/read", uri="b"), "", 1.0) is not None


# ---- bounds


def test_the_number_of_results_is_bounded_and_the_longest_unused_goes_first() -> None:
    cache = ResultCache(most_results=2)
    for uri in ("a", "b"):
        cache.keep(key("resources/read", uri=uri), "", PUBLIC, 0.0)
    cache.find(key("resources/read", uri="a"), "", 1.0)
    cache.keep(key("resources/read", uri="c"), "", PUBLIC, 1.0)
    assert [cache.find(key("resources/read", uri=uri), "", 1.0) is not None for uri in ("a", "b", "c")] == [True, False, True]


def test_a_result_larger_than_the_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = ResultCache(most_bytes=len(PUBLIC))
    assert cache.keep(key(), "", PUBLIC, 0.0)
    assert not cache.keep(key("prompts/list"), "", PUBLIC + b" ", 0.0)
    assert cache.find(key(), "", 1.0) is not None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["keep", "find", "change", "clear"]),
            st.sampled_from(["a", "b", "c", "d"]),
            st.sampled_from(["", "ada", "bob"]),
            st.sampled_from(["public", "private"]),
            st.integers(0, 3_000),
        ),
        max_size=60,
    )
)
def test_no_sequence_breaks_its_bounds_or_shows_a_private_result_to_another(steps: list[tuple[str, str, str, str, int]]) -> None:
    cache = ResultCache(most_results=4, most_bytes=400)
    now_s = 0.0
    for step, uri, principal, scope, ttl_ms in steps:
        now_s += 0.5
        if step == "keep":
            cache.keep(key("resources/read", uri=uri), principal, result(ttlMs=ttl_ms, cacheScope=scope, owner=principal), now_s)
        elif step == "find":
            found = cache.find(key("resources/read", uri=uri), principal, now_s)
            shown = json.loads(found) if found is not None else None
            assert shown is None or shown["cacheScope"] == "public" or shown["owner"] == principal
        elif step == "change":
            cache.note_change("notifications/resources/updated", json.dumps({"uri": uri}).encode())
        else:
            cache.clear()
        cache.assert_consistent()


@given(st.binary(max_size=200))
def test_any_bytes_as_a_result_are_kept_or_not_and_nothing_else_happens(data: bytes) -> None:
    cache = ResultCache()
    cache.keep(key(), "ada", data, 0.0)
    cache.assert_consistent()
