"""The two tools that stand for a list too long to be shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from mcp_gateway.transports.protocol.curation.search_tools import Question, SearchedList, call_of, found, question_of
from mcp_gateway.transports.protocol.curation.tool_index import ToolIndex
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.transports.protocol.curation.tool_corpus import encoded, tools


def raw(*listed: dict[str, Any]) -> list[dict[str, Raw]]:
    return [members(json.dumps(tool).encode()) for tool in listed]


def call(name: str, arguments: Any, **beside: Any) -> Request:
    return Request(b"7", "tools/call", json.dumps({"name": name, "arguments": arguments, **beside}).encode())


def shown(above: int, pinned: list[str], *names: str) -> list[str]:
    listed = SearchedList(above, pinned).shown(raw(*({"name": name} for name in names)))
    return [json.loads(bytes(tool["name"])) for tool in listed]


def test_a_list_is_shown_up_to_the_bound_and_past_it_the_two_tools_are() -> None:
    assert shown(2, [], "a", "b") == ["a", "b"]
    assert shown(2, [], "a", "b", "c") == ["search_tools", "call_tool"]


def test_pinned_tools_stay_in_the_list() -> None:
    assert shown(1, ["b*", "d"], "a", "b", "bc", "c", "d") == ["search_tools", "call_tool", "b", "bc", "d"]


def test_a_servers_tool_of_the_same_name_is_not_shown_however_it_is_written() -> None:
    """Attack: what clients send to the gateway's own tool would be for the server's."""
    assert shown(9, [], "search_tools", "a", "call_tool") == ["a"]
    escaped = members(b'{"name": "search_t\\u006fols"}')
    assert SearchedList(9, []).shown([escaped]) == []


def test_the_list_of_a_thousand_tools_is_down_by_more_than_95_percent() -> None:
    listed = SearchedList(100, []).shown(raw(*tools()))
    assert len(json.dumps([{name: json.loads(bytes(value)) for name, value in tool.items()} for tool in listed])) < (
        0.05 * len(encoded())
    )


def test_a_search_is_a_list_with_a_question() -> None:
    message = call("search_tools", {"query": "read", "limit": 3}, _meta={"x": 1}, task={"ttl": 1})
    listing, question = question_of(message)
    assert (listing.id, listing.method, json.loads(listing.params)) == (b"7", "tools/list", {"_meta": {"x": 1}})
    assert question == Question("read", 3)
    assert question_of(call("search_tools", {"query": "read"}))[1].limit == 5


def test_a_call_by_call_tool_is_the_call_itself_with_all_that_stands_beside() -> None:
    message = call_of(call("call_tool", {"name": "read", "arguments": {"a": 1.50}}, _meta={"x": 1}, requestState="s"))
    assert (message.id, message.method) == (b"7", "tools/call")
    assert json.loads(message.params) == {"name": "read", "arguments": {"a": 1.5}, "_meta": {"x": 1}, "requestState": "s"}
    assert json.loads(call_of(call("call_tool", {"name": "read"})).params)["arguments"] == {}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"query": ""}, {"query": 1}, {"query": "a", "limit": 0}, {"query": "a", "limit": 21}, {"query": "a", "x": 1}, [], "a"],
)
def test_what_is_no_question_is_refused(arguments: Any) -> None:
    with pytest.raises(Refused) as refused:
        question_of(call("search_tools", arguments))
    assert (refused.value.reason, refused.value.request_id) == ("invalid_params", b"7")


@pytest.mark.parametrize("arguments", [{}, {"name": 3}, {"name": "a", "args": {}}, []])
def test_what_is_no_call_is_refused(arguments: Any) -> None:
    with pytest.raises(Refused):
        call_of(call("call_tool", arguments))


@pytest.mark.parametrize(("revision", "kind"), [("2026-07-28", "complete"), ("2025-11-25", None)])
def test_an_answer_has_the_tools_with_their_schemas(revision: str, kind: str | None) -> None:
    listed = raw({"name": "read", "inputSchema": {"type": "object"}}, {"name": "write"})
    result: dict[str, Any] = found(listed, Question("read"), ToolIndex(listed), revision)
    assert (result.get("resultType"), result["isError"]) == (kind, False)
    assert json.loads(result["content"][0]["text"]) == {"tools": [{"name": "read", "inputSchema": {"type": "object"}}]}
    assert result["structuredContent"]["tools"] == listed[:1]


def test_no_answer_says_so() -> None:
    result: dict[str, Any] = found([], Question("read"), ToolIndex([]), "2025-11-25")
    assert (result["structuredContent"], result["content"][0]["text"]) == ({"tools": []}, "No tool fits. Ask in other words.")


def test_an_answer_is_bounded_but_for_the_first_tool() -> None:
    listed = raw(*({"name": f"read{number}", "title": "read", "inputSchema": {"x": "y" * 200_000}} for number in range(3)))
    assert len(found(listed, Question("read"), ToolIndex(listed), "2025-11-25")["structuredContent"]["tools"]) == 1  # type: ignore[index]
