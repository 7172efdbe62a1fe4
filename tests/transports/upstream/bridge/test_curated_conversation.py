"""A wire of which only chosen tools are served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.merging.tool_choice import ToolChoice
from mcp_gateway.transports.upstream.bridge.curated_conversation import CuratedConversation


class Wire:
    def __init__(self, result: bytes) -> None:
        self.result = result
        self.asked: list[str] = []

    async def exchange(self, request: UpstreamRequest, on_event: Any) -> UpstreamAnswer:
        self.asked.append(getattr(request.message, "method", request.kind))
        return UpstreamAnswer(200, Response(b"1", self.result, b""), "session")

    async def probe(self, timeout_s: float) -> None:
        self.asked.append("probe")

    async def close(self) -> None:
        self.asked.append("close")


def asked(wire: Wire, message: Request | Notification | None) -> UpstreamAnswer:
    curated = CuratedConversation(wire, ToolChoice({"deny": ["write*"]}))
    request = UpstreamRequest(kind=RequestKind.REQUEST, message=message, revision="2026-07-28")
    exchange: Coroutine[Any, Any, UpstreamAnswer] = curated.exchange(request, None)  # type: ignore[arg-type]
    return asyncio.run(exchange)


def call(name: object) -> Request:
    return Request(b"7", "tools/call", json.dumps({"name": name, "arguments": {}}).encode())


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
    assert len(wire.asked) == 1


def test_a_list_lacks_what_is_not_served() -> None:
    answer = asked(Wire(b'{"tools": [{"name": "read"}, {"name": "write"}]}'), Request(b"7", "tools/list", b""))
    assert answer.response is not None
    assert json.loads(answer.response.result) == {"tools": [{"name": "read"}]}
    assert answer.session_id == "session"


def test_a_list_that_cannot_be_read_hides_nothing_and_is_a_failure() -> None:
    with pytest.raises(UpstreamError, match="malformed list"):
        asked(Wire(b'{"tools": [{}]}'), Request(b"7", "tools/list", b""))


def test_probe_and_close_are_those_of_the_wire() -> None:
    wire = Wire(b"{}")
    curated = CuratedConversation(wire, ToolChoice({}))

    async def both() -> None:
        await curated.probe(1)
        await curated.close()

    asyncio.run(both())
    assert wire.asked == ["probe", "close"]
