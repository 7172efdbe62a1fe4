"""Several backends as one server: order, pages, capabilities, cache hints, and who is missing."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.list_bounds import LONGEST_DESCRIPTION
from mcp_gateway.transports.protocol.merging.merged_server import (
    LIST_PAGE_ITEMS,
    MISSING_BACKENDS,
    BackendAnswer,
    common_revision,
    list_cursor,
    list_position,
    merged_capabilities,
    merged_discover,
    merged_initialize,
    merged_list,
)
from mcp_gateway.transports.protocol.merging.naming import Naming

INFO = {"name": "mcp-gateway", "version": "1"}
FILES, MAIL = Naming("files", "files__"), Naming("mail", "mail__")
LEGACY, MODERN = "2025-06-18", "2026-07-28"


def page(*names: str, **rest: Any) -> bytes:
    return json.dumps({"tools": [{"name": name} for name in names], **rest}).encode()


def listed(
    *answers: BackendAnswer, missing: dict[str, str] | None = None, revision: str = LEGACY, first_item: int = 0
) -> dict[str, Any]:
    result = merged_list("tools/list", answers, missing or {}, revision, INFO).page(first_item)
    return json.loads(msgspec.json.encode(result))


def names_of(result: dict[str, Any]) -> list[str]:
    return [tool["name"] for tool in result["tools"]]


# ---- lists


def test_items_come_in_the_order_of_the_configuration_and_then_of_each_server():
    result = listed(BackendAnswer(MAIL, [page("b", "a"), page("c")]), BackendAnswer(FILES, [page("b")]))
    assert names_of(result) == ["mail__b", "mail__a", "mail__c", "files__b"]
    assert set(result) == {"tools"}


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 700), max_size=4), max_size=4))
def test_paging_through_cursors_visits_each_item_once(sizes):
    """sizes: items per page, per backend."""
    answers = []
    for index, pages in enumerate(sizes):
        names = [[f"{number}-{item}" for item in range(size)] for number, size in enumerate(pages)]
        answers.append(BackendAnswer(Naming(f"b{index}", f"b{index}__"), [page(*each) for each in names]))
    expected = names_of(listed(*answers)) if sum(map(sum, sizes)) <= LIST_PAGE_ITEMS else None
    seen: list[str] = []
    first_item = 0
    while True:
        result = listed(*answers, first_item=first_item)
        assert len(result["tools"]) <= LIST_PAGE_ITEMS
        seen += names_of(result)
        if "nextCursor" not in result:
            break
        first_item = list_position(json.dumps({"cursor": result["nextCursor"]}).encode(), b"1")
    assert len(seen) == len(set(seen)) == sum(map(sum, sizes))
    assert expected is None or seen == expected


@settings(deadline=None)
@given(st.lists(st.integers(0, 900), min_size=1, max_size=8), st.integers(1, 8))
def test_paging_through_parts_visits_each_item_once(sizes, at_once):
    """sizes: items per backend. at_once: of how many backends a part is made, or of more where they do not fill a page."""
    answers = [
        BackendAnswer(Naming(f"b{index}", f"b{index}__"), [page(*map(str, range(size)))]) for index, size in enumerate(sizes)
    ]
    seen: list[str] = []
    begins, first_item = 0, 0
    while True:
        end = begins + at_once
        while end < len(sizes) and sum(sizes[begins:end]) <= first_item + LIST_PAGE_ITEMS:
            end += 1
        goes_on = f"b{end}" if end < len(sizes) else ""
        part = merged_list("tools/list", answers[begins:end], {}, LEGACY, INFO, is_part=True, goes_on=goes_on)
        result = json.loads(msgspec.json.encode(part.page(first_item)))
        following = [len(each["tools"]) for each in part.pages_after(first_item).values()]
        assert all(count == LIST_PAGE_ITEMS for count in (following if goes_on else following[:-1]))
        seen += names_of(result)
        if "nextCursor" not in result:
            break
        backend, first_item = list_position(json.dumps({"cursor": result["nextCursor"]}).encode(), b"1")
        begins = int(backend[1:])
    assert len(seen) == len(set(seen)) == sum(sizes)


@pytest.mark.parametrize("item_count", [0, 1, LIST_PAGE_ITEMS - 1, LIST_PAGE_ITEMS, LIST_PAGE_ITEMS + 1])
def test_there_is_a_cursor_exactly_where_more_follows(item_count):
    result = listed(BackendAnswer(FILES, [page(*map(str, range(item_count)))]))
    assert ("nextCursor" in result) == (item_count > LIST_PAGE_ITEMS)


@settings(deadline=None)
@given(st.integers(1, 999_999_999))
def test_a_cursor_is_read_as_it_was_written(first_item):
    assert list_position(json.dumps({"cursor": list_cursor(first_item)}).encode(), b"1") == first_item


@pytest.mark.parametrize("params", [b"", b"{}", b'{"_meta":{}}'])
def test_no_cursor_is_the_beginning(params):
    assert list_position(params, b"1") == 0


@pytest.mark.parametrize(
    "cursor",
    [
        None,
        7,
        [],
        "",
        "x",
        "page2",
        "ключ",
        base64.b64encode(b"items:").decode(),
        base64.b64encode(b"items:-1").decode(),
        base64.b64encode(b"items:+1").decode(),
        base64.b64encode(b"items: 1").decode(),
        base64.b64encode(b"items:01").decode(),
        base64.b64encode("items:\u0661".encode()).decode(),
        base64.b64encode(b"items:99999999999").decode(),
        base64.b64encode(b"other:1").decode(),
        list_cursor(1_000) + "!",
        list_cursor(1_000) + "AAAA",
        " " + list_cursor(1_000),
        "A" * 1_000_000,
    ],
    ids=lambda cursor: repr(cursor)[:40],
)
def test_a_cursor_that_is_none_of_ours_is_refused(cursor):
    """Source: MCP 2026-07-28, server/utilities/pagination, "Error Handling": invalid cursors are -32602."""
    with pytest.raises(Refused) as caught:
        list_position(json.dumps({"cursor": cursor}).encode(), b"1")
    assert (caught.value.reason, caught.value.request_id) == ("invalid_params", b"1")


@settings(deadline=None)
@given(st.text())
def test_any_cursor_is_ours_or_refused(cursor):
    try:
        position = list_position(json.dumps({"cursor": cursor}).encode(), b"1")
    except Refused as refused:
        assert refused.reason == "invalid_params"
    else:
        assert list_cursor(position) == cursor


def test_a_cursor_past_the_end_is_refused():
    with pytest.raises(Refused) as caught:
        listed(BackendAnswer(FILES, [page("a")]), first_item=1)
    assert caught.value.reason == "invalid_params"


def test_missing_backends_are_named_and_nobody_caches_the_rest():
    result = listed(
        BackendAnswer(FILES, [page("a", ttlMs=1_000, cacheScope="public")]), missing={"mail": "upstream_timeout"}, revision=MODERN
    )
    assert names_of(result) == ["files__a"]
    assert result["_meta"][MISSING_BACKENDS] == {"mail": "upstream_timeout"}
    assert result["ttlMs"] == 0
    legacy = listed(BackendAnswer(FILES, [page("a")]), missing={"mail": "upstream_timeout"})
    assert legacy == {"tools": [{"name": "files__a"}], "_meta": {MISSING_BACKENDS: {"mail": "upstream_timeout"}}}


@pytest.mark.parametrize(
    "malformed", [b'{"tools":{}}', b'{"tools":[{}]}', b'{"tools":[{"name":7}]}', b'{"tools":[],"ttlMs":1e999}'], ids=repr
)
def test_a_malformed_list_is_missing_and_does_not_spoil_the_rest(malformed):
    missing = {"calendar": "circuit_open"}
    result = listed(BackendAnswer(FILES, [malformed]), BackendAnswer(MAIL, [page("a")]), missing=missing, revision=MODERN)
    assert names_of(result) == ["mail__a"]
    named = result["_meta"][MISSING_BACKENDS]
    assert named["calendar"] == "circuit_open"
    assert named["files"].startswith("malformed list")
    assert missing == {"calendar": "circuit_open"}
    with pytest.raises(Refused) as caught:
        listed(BackendAnswer(FILES, [malformed]), revision=MODERN)
    assert caught.value.reason == "upstream_failed"


def test_backends_without_the_feature_make_an_empty_list():
    assert listed(BackendAnswer(FILES, []), BackendAnswer(MAIL, [])) == {"tools": []}


# ---- cache hints. Source: MCP 2026-07-28, server/utilities/caching.


@pytest.mark.parametrize(
    ("hints", "merged"),
    [
        ([{"ttlMs": 5_000, "cacheScope": "public"}], (5_000, "public")),
        ([{"ttlMs": 5_000, "cacheScope": "public"}, {"ttlMs": 3_000, "cacheScope": "public"}], (3_000, "public")),
        ([{"ttlMs": 5_000, "cacheScope": "public"}, {"ttlMs": 5_000, "cacheScope": "private"}], (5_000, "private")),
        ([{"ttlMs": 5_000, "cacheScope": "public"}, {}], (0, "private")),
        ([{"ttlMs": -1, "cacheScope": "public"}], (0, "public")),
        ([{"ttlMs": True, "cacheScope": "public"}], (0, "public")),
        ([{"ttlMs": "5000", "cacheScope": "public"}], (0, "public")),
        ([{"ttlMs": 1.5, "cacheScope": "everybody"}], (0, "private")),
        ([], (0, "private")),
    ],
)
def test_a_merged_answer_is_as_fresh_and_as_public_as_its_worst_part(hints, merged):
    pages = [BackendAnswer(FILES, [page("a", **each) for each in hints])]
    result = listed(*pages, revision=MODERN)
    assert (result["ttlMs"], result["cacheScope"], result["resultType"]) == (*merged, "complete")
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == INFO
    discovered = merged_discover([(str(number), each) for number, each in enumerate(hints)], {}, INFO)
    assert (discovered["ttlMs"], discovered["cacheScope"]) == merged


def test_legacy_lists_have_no_modern_members():
    assert set(listed(BackendAnswer(FILES, [page("a", ttlMs=1, cacheScope="public", resultType="complete")]))) == {"tools"}


# ---- capabilities and opening


@pytest.mark.parametrize(
    ("capabilities", "merged"),
    [
        ([], {}),
        ([{"tools": {}}, {"prompts": {}}], {"tools": {}, "prompts": {}}),
        ([{"tools": {"listChanged": False}}, {"tools": {"listChanged": True}}], {"tools": {"listChanged": True}}),
        ([{"tools": {"listChanged": True}}, {"tools": {"listChanged": False}}], {"tools": {"listChanged": True}}),
        ([{"tools": {"listChanged": True}}, {"tools": {}}], {"tools": {"listChanged": True}}),
        (
            [{"resources": {"subscribe": True}}, {"resources": {"listChanged": True}, "logging": {}}],
            {"resources": {"subscribe": True, "listChanged": True}, "logging": {}},
        ),
        (
            [{"experimental": {"a": {"b": 1}}}, {"experimental": {"a": {"c": 2, "b": 3}}}],
            {"experimental": {"a": {"b": 1, "c": 2}}},
        ),
        ([{"tools": True}, {"tools": {"listChanged": True}}], {"tools": {"listChanged": True}}),
        ([{"tools": {}}, {"tools": None}], {"tools": {}}),
        ([7, None, [], {"tools": {}}], {"tools": {}}),
    ],
)
def test_the_merged_server_can_do_what_any_of_its_servers_can(capabilities, merged):
    results = [{"capabilities": each} for each in capabilities]
    before = json.dumps(results)
    assert merged_capabilities([*results, {}]) == merged
    assert json.dumps(results) == before


def test_while_a_server_is_starting_the_client_is_told_that_lists_may_come():
    """A client that reads no `listChanged` would not listen, and one that reads no `tools` would not even list."""
    changing = {"listChanged": True}
    everything = {"tools": changing, "prompts": changing, "resources": {"subscribe": True, **changing}, "logging": {}}
    answers = [("files", {"capabilities": {"resources": {"subscribe": True}, "logging": {}, "tools": {"listChanged": False}}})]
    assert merged_initialize(answers, LEGACY, INFO, more_come=True)["capabilities"] == everything
    assert merged_discover(answers, {"mail": "upstream_timeout"}, INFO, more_come=True)["capabilities"] == everything
    assert merged_discover(answers, {}, INFO)["capabilities"] == answers[0][1]["capabilities"]


def test_capabilities_nested_without_end_are_no_error():
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert "a" in merged_capabilities([{"capabilities": deep}, {"capabilities": deep}])


def test_initialize_is_answered_with_what_all_agree_on():
    answers = [
        ("files", {"capabilities": {"tools": {}}, "instructions": "Read."}),
        ("mail", {"capabilities": {"prompts": {}}, "instructions": ""}),
        ("rest", {"capabilities": {}, "instructions": 7}),
        ("calendar", {"instructions": "Plan."}),
    ]
    assert merged_initialize(answers, LEGACY, INFO) == {
        "protocolVersion": LEGACY,
        "capabilities": {"tools": {}, "prompts": {}},
        "serverInfo": INFO,
        "instructions": "files: Read.\n\ncalendar: Plan.",
    }
    assert "instructions" not in merged_initialize([("files", {})], LEGACY, INFO)
    long = merged_initialize([("files", {"instructions": "x" * 1_000_000})], LEGACY, INFO)["instructions"]
    assert long == f"files: {'x' * (LONGEST_DESCRIPTION - 1)}…"


@pytest.mark.parametrize(
    ("requested", "offered", "common"),
    [
        ("2025-06-18", ["2025-06-18"], "2025-06-18"),
        ("2025-11-25", ["2025-06-18", "2025-03-26"], "2025-03-26"),
        ("2025-03-26", ["2025-11-25"], "2025-03-26"),
        ("2025-06-18", ["2099-01-01", "nonsense"], "2025-06-18"),
        ("2025-06-18", [], "2025-06-18"),
    ],
)
def test_the_merged_server_speaks_the_oldest_revision_among_them(requested, offered, common):
    assert common_revision(requested, offered) == common


def test_discover_names_who_is_missing_and_is_not_cached_then():
    answers = [("files", {"capabilities": {"tools": {}}, "ttlMs": 9, "cacheScope": "public", "instructions": "Read."})]
    whole = merged_discover(answers, {}, INFO)
    assert (whole["ttlMs"], whole["instructions"]) == (9, "files: Read.")
    assert MODERN in whole["supportedVersions"]
    assert MISSING_BACKENDS not in whole["_meta"]
    partial = merged_discover(answers, {"mail": "circuit_open"}, INFO)
    assert partial["ttlMs"] == 0
    assert partial["_meta"][MISSING_BACKENDS] == {"mail": "circuit_open"}


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), max_size=4))
def test_of_items_of_one_server_by_the_same_name_the_first_is_served_and_the_others_are_named(pages):
    mail = Naming("mail", "mail__")
    result = listed(BackendAnswer(FILES, [page(*names) for names in pages]), BackendAnswer(mail, [page("a")]))
    names = [name for each in pages for name in each]
    assert names_of(result) == [*(f"files__{name}" for name in dict.fromkeys(names)), "mail__a"]
    missing = result.get("_meta", {}).get(MISSING_BACKENDS, {})
    assert list(missing) == (["files"] if len(names) > len(set(names)) else [])


def test_items_without_a_name_are_left_to_the_client_of_a_backend_that_stands_alone():
    result = listed(BackendAnswer(Naming("files", ""), [b'{"tools":[{},{}]}']))
    assert len(result["tools"]) == 2
