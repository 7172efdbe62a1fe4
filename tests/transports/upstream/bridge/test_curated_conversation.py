"""A wire whose tools are served as the configuration says."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import msgspec
import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.curation.curation import Curation
from mcp_gateway.transports.protocol.curation.portable_names import portable
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.upstream.bridge.curated_conversation import CuratedConversation
from mcp_gateway.transports.upstream.bridge.tool_rules import ToolRules

LONG = "x" * 80


class Wire:
    """Answers each request with the next of its results, and the last one again and again."""

    def __init__(self, *results: bytes) -> None:
        self.results = list(results)
        self.asked: list[str] = []
        self.requests: list[UpstreamRequest] = []

    async def exchange(self, request: UpstreamRequest, on_event: Any) -> UpstreamAnswer:
        self.asked.append(getattr(request.message, "method", request.kind))
        self.requests.append(request)
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        return UpstreamAnswer(200, Response(b"1", result, b""), "session")

    async def probe(self, timeout_s: float) -> None:
        self.asked.append("probe")

    async def close(self) -> None:
        self.asked.append("close")


def curated(wire: Wire, tools: dict[str, Any] | None = None) -> CuratedConversation:
    return CuratedConversation(wire, Curation({"deny": ["write*"]} if tools is None else tools, "b__"), "b")


def request_of(message: Request | Notification | None) -> UpstreamRequest:
    return UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision="2026-07-28", has_headers=True)


async def exchanged(conversation: CuratedConversation, request: UpstreamRequest) -> UpstreamAnswer:
    return await conversation.exchange(request, None)  # type: ignore[arg-type]


def asked(wire: Wire, message: Request | Notification | None, tools: dict[str, Any] | None = None) -> UpstreamAnswer:
    return asyncio.run(exchanged(curated(wire, tools), request_of(message)))


def call(name: object, **arguments: Any) -> Request:
    return Request(b"7", "tools/call", json.dumps({"name": name, "arguments": arguments}).encode())


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (b'{"name":["write_file"],"arguments":{}}', "the name of a tool is a string"),
        (b'{"name":"read","Name":"write_file"}', "'Name' is not how 'name' is written"),
        (b'{"name":"read","arguments":{},"ARGUMENTS":{"x":1}}', "'ARGUMENTS' is not how 'arguments' is written"),
    ],
)
def test_a_call_that_a_server_may_read_otherwise_is_refused_where_tools_are_chosen(params: bytes, said: str) -> None:
    wire = Wire(b"{}")
    conversation = curated(wire)
    asyncio.run(exchanged(conversation, request_of(call("read"))))
    answer = asyncio.run(exchanged(conversation, request_of(Request(b"7", "tools/call", params))))
    assert answer.response is not None
    assert (json.loads(answer.response.error)["message"], wire.asked) == (said, ["tools/call"])


def test_where_every_tool_is_served_as_it_is_a_call_is_the_servers_to_refuse() -> None:
    wire = Wire(b"{}")
    asked(wire, Request(b"7", "tools/call", b'{"Name":"x"}'), {})
    assert wire.asked == ["tools/call"]


def page(*names: str, **beside: Any) -> bytes:
    return json.dumps({"tools": [{"name": name} for name in names], **beside}).encode()


def test_what_is_not_served_cannot_be_called_and_the_server_does_not_hear_of_it() -> None:
    wire = Wire(b"{}")
    answer = asked(wire, call("write_file"))
    assert answer.response is not None
    assert (answer.status, answer.response.id, wire.asked) == (400, b"7", [])
    assert json.loads(answer.response.error) == {
        "code": -32602,
        "message": "Unknown tool: write_file",
        "data": {"reason": "invalid_params"},
    }


@pytest.mark.parametrize("message", [call("read"), call(3), Request(b"7", "tools/call", b"{}"), Request(b"7", "ping", b""), None])
def test_all_else_passes_as_it_is(message: Request | None) -> None:
    wire = Wire(b'{"tools": 3}')
    assert asked(wire, message) == UpstreamAnswer(200, Response(b"1", b'{"tools": 3}', b""), "session")
    assert wire.requests == [request_of(message)]


def test_a_call_by_another_name_reaches_the_server_by_its_own_without_the_headers_of_what_the_client_sent() -> None:
    wire = Wire(b"{}")
    conversation = curated(wire, {"rename": {"read": "cat"}, "overrides": {"read": {"fixed": {"root": "/"}}}})
    request = msgspec.structs.replace(request_of(call("cat", n=1)), headers={"mcp-param-root": "/etc", "traceparent": "t"})
    asyncio.run(exchanged(conversation, request))
    (sent,) = wire.requests
    assert isinstance(sent.message, Request)
    assert json.loads(sent.message.params) == {"name": "read", "arguments": {"n": 1, "root": "/"}}
    assert (sent.headers, sent.has_headers, sent.is_curated) == ({"traceparent": "t"}, False, True)


def test_arguments_that_are_no_object_are_refused_where_others_are_put_in() -> None:
    wire = Wire(b"{}")
    message = Request(b"7", "tools/call", b'{"name": "read", "arguments": [1]}')
    answer = asked(wire, message, {"overrides": {"read": {"fixed": {"root": "/"}}}})
    assert answer.response is not None
    assert (answer.status, json.loads(answer.response.error)["code"], wire.asked) == (400, -32602, [])


def test_what_another_cell_has_curated_passes() -> None:
    wire = Wire(page("read", "write"))
    conversation = curated(wire, {"rename": {"read": "write", "write": "read"}})
    for message in (call("read"), Request(b"7", "tools/list", b"")):
        request = msgspec.structs.replace(request_of(message), is_curated=True)
        answer = asyncio.run(exchanged(conversation, request))
        assert answer.response is not None
        assert (answer.response.result, wire.requests[-1]) == (page("read", "write"), request)


def test_a_list_lacks_what_is_not_served() -> None:
    answer = asked(Wire(page("read", "write")), Request(b"7", "tools/list", b""))
    assert answer.response is not None
    assert json.loads(answer.response.result) == {"tools": [{"name": "read"}]}
    assert answer.session_id == "session"


def test_a_list_that_cannot_be_read_hides_nothing_and_is_a_failure() -> None:
    with pytest.raises(UpstreamError, match="malformed list"):
        asked(Wire(b'{"tools": [{}]}'), Request(b"7", "tools/list", b""))


def test_a_portable_name_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    conversation = curated(Wire(page(LONG, "a")), {})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            asyncio.run(exchanged(conversation, request_of(Request(b"7", "tools/list", b""))))
    assert [portable(LONG, 61) in record.message for record in caplog.records] == [True]


def test_a_portable_name_is_looked_up_where_no_list_was_seen_and_what_is_not_found_not_at_once_again() -> None:
    wire = Wire(page("a", nextCursor="c"), page(LONG), b"{}")
    conversation = curated(wire, {})
    for name in (portable(LONG, 61), portable(LONG, 61), "other_0123abcd"):
        asyncio.run(exchanged(conversation, request_of(call(name))))
    assert wire.asked == ["tools/list", "tools/list", "tools/call", "tools/call", "tools/call"]
    names = [json.loads(each.message.params).get("name") for each in wire.requests if isinstance(each.message, Request)]
    assert names == [None, None, LONG, LONG, "other_0123abcd"]


def test_rules_know_a_tool_by_the_servers_own_name_and_read_the_list_where_they_have_not_seen_it() -> None:
    tools = {"rename": {"read": "cat"}, "check": ("arguments",)}
    listed = json.dumps({"tools": [{"name": "read", "inputSchema": {"required": ["n"]}}]}).encode()
    wire = Wire(listed, b"{}")
    conversation = CuratedConversation(wire, Curation(tools, "b__"), "b", rules=ToolRules.of("b", tools, None))
    with pytest.raises(UpstreamError, match="required"):
        asyncio.run(exchanged(conversation, request_of(call("cat"))))
    asyncio.run(exchanged(conversation, request_of(call("cat", n=1))))
    assert wire.asked == ["tools/list", "tools/call"]


def test_results_are_cut_when_they_come_at_once_and_when_a_task_gives_them_later() -> None:
    tools = {"max_result_bytes": 200}
    result = json.dumps({"content": [{"type": "text", "text": "x" * 500}]}).encode()
    for message in (call("read"), Request(b"7", "tasks/result", b'{"taskId": "1"}')):
        conversation = CuratedConversation(Wire(result), Curation(tools, ""), "b", rules=ToolRules.of("b", tools, None))
        answer = asyncio.run(exchanged(conversation, request_of(message)))
        assert answer.response is not None
        assert b"Cut by the gateway" in answer.response.result


def test_a_result_that_is_none_is_a_failure_where_rules_are_about_it() -> None:
    tools = {"max_result_bytes": 5}
    conversation = CuratedConversation(Wire(b"[1, 2, 3]"), Curation(tools, ""), "b", rules=ToolRules.of("b", tools, None))
    with pytest.raises(UpstreamError, match="malformed result"):
        asyncio.run(exchanged(conversation, request_of(call("read"))))


def test_probe_and_close_are_those_of_the_wire() -> None:
    wire = Wire(b"{}")
    conversation = curated(wire)

    async def both() -> None:
        await conversation.probe(1)
        await conversation.close()

    asyncio.run(both())
    assert wire.asked == ["probe", "close"]
