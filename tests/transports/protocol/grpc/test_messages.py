"""Results and parameters as gRPC carries them: what comes back is what went in."""

from __future__ import annotations

from typing import Any

import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto

from mcp_gateway.transports.protocol.grpc.messages import fill, json_of
from mcp_gateway.transports.protocol.grpc.methods import METHODS
from mcp_gateway.transports.protocol.grpc.values import Budget, CannotCross

_DONE = {"resultType": "complete"}
_TEXT = {"type": "text", "text": "said"}

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("tools/list", {"_meta": {"a.b/c": {"x": [1, 2.5, None, True, {}]}}}),
    ("tools/call", {"name": "x", "arguments": {"a": 1}}),
    ("tools/call", {"name": "x"}),
    ("tools/call", {"name": "x", "arguments": {}, "requestState": ""}),
    ("resources/read", {"uri": "note://1"}),
    ("prompts/get", {"name": "p", "arguments": {"who": "é"}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}),
    (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "a{b}"},
            "argument": {"name": "b", "value": "v"},
            "context": {"arguments": {"x": "y"}},
        },
    ),
]
_LISTED = {**_DONE, "ttlMs": 0, "cacheScope": "private"}
RESULTS: list[tuple[str, dict[str, Any]]] = [
    ("tools/list", {**_DONE, "tools": [], "ttlMs": 1_500, "cacheScope": "private"}),
    (
        "tools/list",
        {
            **_LISTED,
            "tools": [
                {
                    "name": "a",
                    "title": "A",
                    "description": "d",
                    "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
                    "outputSchema": {"type": "object"},
                    "annotations": {"readOnlyHint": True, "destructiveHint": True, "openWorldHint": True},
                    "icons": [{"src": "data:x", "mimeType": "image/png", "sizes": ["any"], "theme": "dark"}],
                    "_meta": {"x/y": 1},
                }
            ],
        },
    ),
    ("tools/call", {**_DONE, "content": []}),
    (
        "tools/call",
        {
            **_DONE,
            "_meta": {"k/v": "w"},
            "content": [
                {"type": "text", "text": "", "annotations": {"audience": ["user", "assistant"], "priority": 0.8}},
                {"type": "image", "data": "AP8=", "mimeType": "image/png"},
                {"type": "audio", "data": "", "mimeType": "audio/wav"},
                {"type": "resource", "resource": {"uri": "u", "text": ""}},
                {"type": "resource_link", "uri": "u", "name": "n", "size": 3},
            ],
            "structuredContent": {"rows": [{"n": 1}]},
            "isError": True,
        },
    ),
    (
        "resources/list",
        {**_LISTED, "resources": [{"uri": "u", "name": "", "annotations": {"lastModified": "2026-01-01"}}]},
    ),
    (
        "resources/read",
        {**_LISTED, "contents": [{"uri": "u", "blob": "AP8="}, {"uri": "v", "mimeType": "text/x", "text": "é"}]},
    ),
    ("resources/templates/list", {**_LISTED, "resourceTemplates": [{"uriTemplate": "a{b}", "name": "n"}]}),
    ("prompts/list", {**_LISTED, "prompts": [{"name": "p", "arguments": [{"name": "a", "required": True}]}]}),
    ("prompts/get", {**_DONE, "description": "d", "messages": [{"role": "assistant", "content": _TEXT}]}),
    ("completion/complete", {**_DONE, "completion": {"values": ["a", "b"], "total": 0, "hasMore": True}}),
]


@pytest.mark.parametrize(("name", "params"), REQUESTS)
def test_parameters_come_back_as_they_were(name: str, params: dict[str, Any]) -> None:
    method = METHODS[name]
    assert method.decode_request(method.encode_request(params)) == params


@pytest.mark.parametrize(("name", "result"), RESULTS)
def test_results_come_back_as_they_were(name: str, result: dict[str, Any]) -> None:
    method = METHODS[name]
    assert method.decode_response(method.encode_response(result)) == result


def test_a_tool_that_may_destroy_is_never_said_to_be_harmless() -> None:
    """Ours: where MCP takes an absent hint for true, the proto takes it for false."""
    told = proto.ToolAnnotations()
    fill(told, {"title": "t"}, Budget())
    assert (told.destructive_hint, told.open_world_hint, told.read_only_hint) == (True, True, False)
    fill(told, {"destructiveHint": False}, Budget())
    assert not told.destructive_hint
    assert "destructiveHint" not in json_of(told, Budget()), "false and absent cannot be told apart: absent is true"


def test_a_tool_without_a_schema_takes_any_object() -> None:
    assert json_of(proto.Tool(name="a"), Budget()) == {"name": "a", "inputSchema": {"type": "object"}}


def test_a_result_that_does_not_say_what_it_is_is_complete() -> None:
    """Source: mcp_messages.proto, `ResultType`."""
    assert json_of(proto.ListToolsResponse(), Budget()) == {"tools": [], "resultType": "complete"}


@pytest.mark.parametrize(
    ("name", "result", "says"),
    [
        ("tools/call", {"content": [{"type": "hologram"}]}, "no content of type 'hologram'"),
        ("tools/call", {"content": [{"type": ["text"]}]}, "no content of type"),
        ("tools/call", {"content": [], "structuredContent": [1]}, "objects"),
        ("tools/call", {"content": [{"type": "image", "data": "%", "mimeType": "x"}]}, "Base64"),
        ("tools/call", {"content": "text"}, "form"),
        ("tools/call", {"content": [{"type": "text", "text": "\ud800"}]}, "form"),
        ("prompts/get", {"messages": [{"role": "user", "content": [_TEXT]}]}, "one block"),
        ("prompts/get", {"messages": [{"role": "nobody", "content": _TEXT}]}, "form"),
        ("completion/complete", {}, "form"),
        ("tools/list", {"tools": [7]}, "form"),
    ],
)
def test_what_grpc_has_no_form_of_is_refused_in_words(name: str, result: dict[str, Any], says: str) -> None:
    with pytest.raises(CannotCross, match=says):
        METHODS[name].encode_response(result)


def test_a_list_that_does_not_say_how_long_it_holds_is_kept_for_nobody() -> None:
    """Source: MCP 2026-07-28, server/utilities/caching: both members are required there, and the proto has neither."""
    told = METHODS["prompts/list"].decode_response(proto.ListPromptsResponse(cache_scope=9).SerializeToString())
    assert told == {**_LISTED, "prompts": []}


def test_content_of_a_newer_kind_is_refused_rather_than_lost() -> None:
    data = proto.CallToolResponse(content=[proto.CallToolResponse.Content()]).SerializeToString()
    with pytest.raises(CannotCross, match="not known here"):
        METHODS["tools/call"].decode_response(data)
