"""Whether tools are what was approved."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.curation import tool_pins
from mcp_gateway.transports.protocol.curation.tool_pins import Pin, compare, definitions_of
from mcp_gateway.transports.protocol.mcp.jsonrpc import members


def definition(**tool: Any) -> dict[str, Any]:
    return dict(definitions_of([members(json.dumps({"name": "t", **tool}).encode())]))


KNOWN = compare({}, definition(description="a", inputSchema={"x": 1, "y": 2})).written


def test_a_tool_is_approved_when_it_is_first_seen() -> None:
    compared = compare({}, definition(description="a"))
    assert (compared.changed, compared.news, len(compared.written)) == (frozenset(), frozenset(), 1)


@pytest.mark.parametrize(
    "tool",
    [
        {"description": "a", "inputSchema": {"y": 2, "x": 1}},
        {"description": "a"},
        {"description": "a", "inputSchema": {"x": 1, "y": 2}, "annotations": {"readOnlyHint": True}},
        {"description": "a", "inputSchema": {"x": 1, "y": 2}, "_meta": {"now": 1}, "icons": []},
    ],
)
def test_it_is_the_same_however_it_is_written_and_whatever_a_revision_leaves_out(tool: dict[str, Any]) -> None:
    compared = compare(KNOWN, definition(**tool))
    assert (compared.changed, compared.news) == (frozenset(), frozenset())


def test_json_that_is_written_in_another_way_is_the_same() -> None:
    one = definitions_of([members(b'{"name": "t", "description": "a\\u0062"}')])
    assert one == definitions_of([members(b'{ "description" : "ab", "name":"t" }')])


@pytest.mark.parametrize(
    "tool", [{"description": "b"}, {"inputSchema": {"x": 1, "y": 3}}, {"inputSchema": {}}, {"description": "a "}]
)
def test_a_change_is_news_once_and_stays_one(tool: dict[str, Any]) -> None:
    first = compare(KNOWN, definition(**tool))
    assert (first.changed, first.news) == ({"t"}, {"t"})
    second = compare({**KNOWN, **first.written}, definition(**tool))
    assert (second.changed, second.news, second.written) == ({"t"}, frozenset(), {})


def test_a_tool_that_is_again_what_was_approved_is_no_change_and_another_change_is_news() -> None:
    known = {**KNOWN, **compare(KNOWN, definition(description="b")).written}
    back = compare(known, definition(description="a"))
    assert (back.changed, back.news) == (frozenset(), frozenset())
    assert compare(known, definition(description="c")).news == {"t"}


def test_tools_without_a_name_are_none_and_what_is_no_name_is_an_error() -> None:
    assert definitions_of([members(b'{"title": "x"}')]) == {}
    with pytest.raises(msgspec.DecodeError):
        definitions_of([members(b'{"name": 3}')])


def test_tools_beyond_the_bound_count_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool_pins, "MOST_TOOLS", 2)
    compared = compare({}, {f"t{number}": {"description": "x"} for number in range(3)})
    assert (compared.changed, {tool for tool, _ in compared.written}) == ({"t2"}, {"t0", "t1"})


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.dictionaries(st.sampled_from("xy"), st.sampled_from("123")))))
def test_what_is_changed_is_what_differs_from_what_was_seen_first(lists: list[dict[str, dict[str, str]]]) -> None:
    pins: dict[tuple[str, str], Pin] = {}
    first: dict[tuple[str, str], str] = {}
    for listed in lists:
        compared = compare(pins, listed)
        pins.update(compared.written)
        for tool, said in listed.items():
            for member, seen in said.items():
                first.setdefault((tool, member), seen)
            assert (tool in compared.changed) == any(first[tool, member] != seen for member, seen in said.items())
        assert compared.news <= compared.changed
