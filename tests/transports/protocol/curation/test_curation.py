"""A backend's tools as clients see and call them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.curation import curation as curation_module
from mcp_gateway.transports.protocol.curation.curation import Curation, UnknownTool

TOOLS = ["read_file", "read_secret", "write", "a.b"]


def page(*names: str, **beside: Any) -> bytes:
    return json.dumps({"tools": [{"name": name, "inputSchema": {"n": 1.50}} for name in names], **beside}).encode()


def call(name: str, **arguments: Any) -> bytes:
    return json.dumps({"name": name, "arguments": arguments, "_meta": {"x": 1}}).encode()


def listed(curation: Curation, result: bytes) -> list[str]:
    return [tool["name"] for tool in json.loads(curation.served_list(result))["tools"]]


def test_a_list_and_a_call_that_nothing_is_changed_of_are_the_very_same_bytes() -> None:
    curation = Curation({"deny": ["write"], "overrides": {"write": {"title": "x"}, "read_file": {"title": "y"}}}, "b__")
    result = b'{ "tools" : [ {"name" : "other", "n": 1.50} ] }'
    params = b'{ "name" : "read_file" }'
    assert curation.served_list(result) is result
    assert curation.own_call("read_file", params) is params


def test_a_list_lacks_what_is_not_served_and_keeps_what_stands_beside() -> None:
    curation = Curation({"allow": ["read_*", "a.*"], "deny": ["*secret"], "rename": {"read_file": "cat"}}, "")
    result = json.loads(curation.served_list(page(*TOOLS, nextCursor="c", _meta={"x": 1})))
    assert [tool["name"] for tool in result["tools"]] == ["cat", "a_b_2e7336dc"]
    assert {key: result[key] for key in ("nextCursor", "_meta")} == {"nextCursor": "c", "_meta": {"x": 1}}


def test_it_is_known_of_each_tool_that_is_not_served_by_its_own_name_and_of_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    curation = Curation({"deny": ["*secret"], "rename": {"read_file": "cat"}}, "b__")
    curation.served_list(page(*TOOLS), frozenset({"write"}))
    hidden = {"read_secret": None, "write": None}
    assert {name: curation.seen[name] for name in hidden} == hidden
    assert (curation.seen["read_file"], str(curation.seen["a.b"]).startswith("a_b_"), len(curation.seen)) == ("cat", True, 4)
    curation.served_list(page(*TOOLS))
    assert "write" not in curation.seen, "it is served again"
    monkeypatch.setattr(curation_module, "MOST_SEEN", 3)
    curation.served_list(page("another_secret"))
    assert len(curation.seen) == 3


def test_a_call_reaches_the_server_by_its_own_name_with_the_arguments_that_it_shall_have() -> None:
    override = {"read_file": {"fixed": {"root": "/srv"}, "defaults": {"limit": 3}}}
    curation = Curation({"rename": {"read_file": "cat"}, "overrides": override}, "files__")
    sent = json.loads(curation.own_call("cat", call("cat", path="a", root="/")))
    assert sent == {"name": "read_file", "arguments": {"limit": 3, "path": "a", "root": "/srv"}, "_meta": {"x": 1}}


@pytest.mark.parametrize("name", ["read_file", "write", "a.b"])
def test_what_is_not_served_by_that_name_is_unknown(name: str) -> None:
    curation = Curation({"deny": ["write"], "rename": {"read_file": "cat"}}, "")
    with pytest.raises(UnknownTool):
        curation.own_call(name, call(name))


@pytest.mark.parametrize("params", [b"{}", b'{"name": 3}', b"[]", b""])
def test_a_call_without_a_name_is_for_the_server_to_refuse(params: bytes) -> None:
    assert Curation({}, "").name_called(params) is None


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (b'{"name":"a.b-C_1","arguments":{"name":"x"}}', "a.b-C_1"),
        (b' { "name" : "a" , "x":1}', "a"),
        (b'{"arguments":{"name":"x"},"name":"a"}', "a"),
        (b'{"name":"a\\u0062"}', "ab"),
        ('{"name":"größe"}'.encode(), "größe"),
        (b'{"nam\\u0065":"a"}', "a"),
    ],
)
def test_a_name_is_found_wherever_and_however_it_is_written(params: bytes, name: str) -> None:
    assert Curation({}, "").name_called(params) == name


def test_only_names_that_pass_as_they_are_are_remembered_to_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation_module, "_MOST_PASSING", 2)
    curation = Curation({"rename": {"read": "cat"}, "overrides": {"fixed": {"fixed": {"a": 1}}}}, "")
    for name in ("cat", "fixed", "marked_0123abcd", "x" * 64):
        curation.own_call(name, call(name))
    assert [curation.passes(name) for name in ("cat", "fixed", "marked_0123abcd", "x" * 64)] == [False, False, False, True]
    for name in "abc":
        curation.own_call(name, call(name))
    assert [curation.passes(name) for name in ("a", "b", "c")] == [False, True, True]


@pytest.mark.parametrize("result", [b"[]", b'{"tools": 3}', b'{"tools": [3]}', b'{"tools": [{}]}', b'{"tools": [{"name": 3}]}'])
def test_what_is_no_list_of_tools_is_an_error_only_where_something_must_not_be_seen(result: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        Curation({"deny": ["x"]}, "").served_list(result)
    assert Curation({}, "").served_list(result) is result


NAMES = st.one_of(st.sampled_from([*TOOLS, "cat", "x" * 70]), st.text(min_size=1, max_size=90))


@given(
    st.lists(NAMES, unique=True, max_size=8),
    st.lists(NAMES, max_size=3),
    st.lists(NAMES, max_size=3),
    st.dictionaries(NAMES, st.sampled_from(["cat", "write"]), max_size=1),
    st.sampled_from(["", "files__", "p" * 60]),
)
def test_lists_and_calls_agree(own: list[str], allow: list[str], deny: list[str], rename: dict[str, str], prefix: str) -> None:
    curation = Curation({"allow": allow, "deny": deny, "rename": rename}, prefix)
    here = listed(curation, page(*own))
    assert len(set(here)) == len(here)
    reached = [json.loads(curation.own_call(name, call(name)))["name"] for name in here]
    assert len(set(reached)) == len(reached)
    assert set(reached) <= set(own)
    for name in {*own, *allow, *deny, *rename.values()} - set(here):
        try:
            own_name = json.loads(curation.own_call(name, call(name)))["name"]
        except UnknownTool:
            continue
        assert own_name not in own
