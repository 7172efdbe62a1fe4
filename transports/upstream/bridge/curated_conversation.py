"""A wire of which only chosen tools are served, to clients of every era and transport, and behind every endpoint."""

from __future__ import annotations

import attrs
import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.modern_rules import item_of
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS, Refused
from mcp_gateway.transports.protocol.merging.tool_choice import ToolChoice


class CuratedConversation:
    """Implements `UpstreamConversation` over another one. What is not served does not exist: it is not listed, and a call of it
    is answered as one of a tool that the server does not have.

    Source: MCP 2025-11-25, server/tools, "Error Handling": an unknown tool is a protocol error, -32602.
    """

    def __init__(self, wire: UpstreamConversation, choice: ToolChoice) -> None:
        self._wire = wire
        self._choice = choice

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if not isinstance(message, Request):
            return await self._wire.exchange(request, on_event)
        if message.method == "tools/call" and (refusal := self._refusal(message)) is not None:
            return refusal
        answer = await self._wire.exchange(request, on_event)
        if message.method != "tools/list" or answer.response is None or not answer.response.result:
            return answer
        try:
            result = self._choice.served_list(answer.response.result)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UpstreamError(Fate.BROKEN, f"the server sent a malformed list: {error}") from None
        return attrs.evolve(answer, response=Response(answer.response.id, result, b""))

    def _refusal(self, message: Request) -> UpstreamAnswer | None:
        try:
            name = item_of(jsonrpc.members(message.params), "name", message.id)
        except (Refused, msgspec.DecodeError):
            return None  # a call without a name is the server's to refuse
        if self._choice.serves(name):
            return None
        kind = REFUSALS["invalid_params"]
        error = {"code": kind.code, "message": f"Unknown tool: {name}", "data": {"reason": "invalid_params"}}
        return UpstreamAnswer(kind.status, Response(message.id, b"", msgspec.json.encode(error)))

    async def probe(self, timeout_s: float) -> None:
        await self._wire.probe(timeout_s)

    async def close(self) -> None:
        await self._wire.close()
