"""An MCP server of tools and nothing else, in front of whatever carries them out; the bridge makes it one for older clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
import msgspec

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import INVALID_PARAMS, METHOD_NOT_FOUND
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_SERVER_INFO, NEWEST

LARGEST_SCHEMA_BYTES: Final = 65_536
"""Of the arguments of one tool: a model has to read it. What is larger is said in words alone."""
_TTL_MS: Final = 300_000

Report = Callable[[float, str], Awaitable[None]]
"""Tells who has called how far its call is: a number that grows, and words."""


class WrongArguments(Exception):
    """The tool cannot be called so; the text says why, for whoever has called."""


@attrs.frozen
class ToolOutcome:
    """What a call has given. structured: as JSON has it, an object; None for nothing but `content`."""

    content: Sequence[Mapping[str, Any]]
    structured: Mapping[str, Any] | None = None
    is_error: bool = False


class ToolSource(Protocol):
    """What carries the tools out. Every method may raise UpstreamError."""

    name: str

    async def instructions(self) -> str:
        """What a client is told of the server as a whole; "" for nothing."""

    async def tools(self) -> Sequence[Mapping[str, Any]]:
        """As `tools/list` has them."""

    async def call(self, name: str, arguments: Mapping[str, Any], timeout_s: float | None, report: Report) -> ToolOutcome | None:
        """None where there is no such tool.

        Raises: WrongArguments
        """

    async def probe(self, timeout_s: float) -> None:
        """Ask whether what carries the tools out is well."""

    async def close(self) -> None:
        """Let go of every connection."""


def size_of(schema: Any) -> int:
    """In bytes, as JSON."""
    return len(msgspec.json.encode(schema))


class AdaptedConversation:
    """Answers `server/discover`, `tools/list` and `tools/call` of one source."""

    def __init__(self, source: ToolSource) -> None:
        self._source = source

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if message is None:
            if request.kind is RequestKind.STREAM:
                raise UpstreamError(Fate.REFUSED, "this server says nothing on its own", reason="unknown_method")
            return UpstreamAnswer(200, None)
        if not isinstance(message, Request):
            return UpstreamAnswer(202, None)
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._answered(request, message, on_event)
        except TimeoutError:
            raise UpstreamError(Fate.TIMED_OUT, "the server did not answer in time") from None

    async def _answered(self, request: UpstreamRequest, message: Request, on_event: EventHandler) -> UpstreamAnswer:
        try:
            params = msgspec.json.decode(message.params) if message.params else {}
        except (msgspec.DecodeError, RecursionError) as error:  # the grammar was checked; numbers beyond any range were not
            return _error(message, INVALID_PARAMS, f"Invalid params: {error}")
        match message.method:
            case "server/discover":
                return _result(message, await self._discovered(), is_cacheable=True)
            case "tools/list":
                if params.get("cursor") is not None:
                    return _error(message, INVALID_PARAMS, "Invalid cursor")
                return _result(message, {"tools": await self._source.tools()}, is_cacheable=True)
            case "tools/call":
                return await self._call(request, message, params, on_event)
            case _:
                return _error(message, METHOD_NOT_FOUND, f"Method not found: {message.method}")

    async def _discovered(self) -> dict[str, Any]:
        instructions = await self._source.instructions()
        result = {
            "supportedVersions": [NEWEST],
            "capabilities": {"tools": {}},
            "_meta": {META_SERVER_INFO: {"name": self._source.name, "version": VERSION}},
        }
        return {**result, "instructions": instructions} if instructions else result

    async def _call(
        self, request: UpstreamRequest, message: Request, params: Mapping[str, Any], on_event: EventHandler
    ) -> UpstreamAnswer:
        name, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(name, str) or not isinstance(arguments, dict):
            return _error(message, INVALID_PARAMS, "Invalid params: a name and an object of arguments are wanted")
        meta = params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None

        async def report(progress: float, text: str) -> None:
            if token is not None:
                told = {"progressToken": token, "progress": progress, "message": text}
                notification = {"jsonrpc": "2.0", "method": "notifications/progress", "params": told}
                await on_event(jsonrpc.decode(msgspec.json.encode(notification)), None)

        try:
            outcome = await self._source.call(name, arguments, request.timeout_s, report)
        except WrongArguments as wrong:
            outcome = ToolOutcome([{"type": "text", "text": str(wrong)}], is_error=True)
        if outcome is None:
            return _error(message, INVALID_PARAMS, f"Unknown tool: {name}")
        result: dict[str, Any] = {"content": outcome.content, "isError": outcome.is_error}
        if outcome.structured is not None:
            result["structuredContent"] = outcome.structured
        return _result(message, result)

    async def probe(self, timeout_s: float) -> None:
        await self._source.probe(timeout_s)

    async def close(self) -> None:
        await self._source.close()


def _result(message: Request, result: Mapping[str, Any], *, is_cacheable: bool = False) -> UpstreamAnswer:
    """Source: MCP 2026-07-28, basic/index "ResultType"; server/utilities/caching."""
    hints = {"ttlMs": _TTL_MS, "cacheScope": "public"} if is_cacheable else {}
    return UpstreamAnswer(200, Response(message.id, msgspec.json.encode({"resultType": "complete", **result, **hints}), b""))


def _error(message: Request, code: int, text: str) -> UpstreamAnswer:
    error = msgspec.json.encode({"code": code, "message": text})
    return UpstreamAnswer(404 if code == METHOD_NOT_FOUND else 400, Response(message.id, b"", error))
