"""Arguments of tools that a modern server over HTTP wants in headers as well, for clients that have sent none.

Source: MCP 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters", "Client Behavior".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.tool_catalogue import KnownTool, known_tools, parameter_headers
from mcp_gateway.transports.protocol.eras.translation import modern_params
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import HEADER_MISMATCH, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.modern_rules import meta_of
from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES, META_CLIENT_INFO, NEWEST

_logger = logging.getLogger(__name__)

_PAGES: Final = 100
_READING_S: Final = 10.0
_KEPT_S: Final = 60.0
"""A catalogue is read again after this, or after the server's own `ttlMs` where that is longer."""


class ParameterHeaders:
    """What one server's tools want in headers, read from it once for every client: the annotations are those of the server."""

    def __init__(self, wire: UpstreamConversation, backend: str) -> None:
        self._wire = wire
        self._backend = backend
        self._ids = itertools.count(1)
        self._id_prefix = secrets.token_urlsafe(4)
        self._tools: dict[str, KnownTool] | None = None
        self._tools_until_s = 0.0
        self._reading: SharedTasks[None, None] = SharedTasks()

    async def call(self, request: UpstreamRequest, message: Request, on_event: EventHandler) -> UpstreamAnswer:
        """Call a tool for a modern client whose own transport has no headers. A refused call did not run, so it may be repeated.

        Raises: UpstreamError.
        """
        meta = meta_of(message.params)
        info, capabilities = meta.get(META_CLIENT_INFO, {}), meta.get(META_CLIENT_CAPABILITIES, {})
        has_refreshed = False
        while True:
            headers = await self.of(request, message, info, capabilities)
            sent = msgspec.structs.replace(request, headers={**request.headers, **headers}) if headers else request
            answer = await self._wire.exchange(sent, on_event)
            error = answer.response.error if answer.response is not None else b""
            if has_refreshed or error_code(error) != HEADER_MISMATCH:
                return answer
            has_refreshed = True
            self.forget()

    async def of(
        self, request: UpstreamRequest, message: Request, client_info: Any, capabilities: Mapping[str, Any]
    ) -> dict[str, str]:
        """`Mcp-Param-*` of a request. A server that cannot list its tools says itself what it misses."""
        if message.method != "tools/call":
            return {}
        try:
            params = jsonrpc.members(message.params)
            name = msgspec.json.decode(params.get("name", Raw(b'""')), type=str)
            if self._tools is None or time.monotonic() > self._tools_until_s:
                await self._read(request, client_info, capabilities)
            tool = (self._tools or {}).get(name)
            return {} if tool is None else parameter_headers(tool, bytes(params.get("arguments", Raw(b""))))
        except (msgspec.DecodeError, RecursionError):
            return {}

    def forget(self) -> None:
        """The server has refused the headers of a call: its tools are not those that are known any more."""
        self._tools = None

    def close(self) -> None:
        self._reading.cancel()

    async def _read(self, request: UpstreamRequest, client_info: Any, capabilities: Mapping[str, Any]) -> None:
        """One reading at a time, for every client."""
        await self._reading.join(None, lambda: self._read_catalogue(request, client_info, capabilities))

    async def _read_catalogue(self, request: UpstreamRequest, client_info: Any, capabilities: Mapping[str, Any]) -> None:
        tools: dict[str, KnownTool] = {}
        ttl_ms = 0
        cursor: Raw | None = None
        try:
            async with asyncio.timeout(_READING_S):
                for _ in range(_PAGES):
                    page = msgspec.json.encode({} if cursor is None else {"cursor": cursor})
                    params = modern_params(page, client_info, capabilities, None, None)
                    asked = UpstreamRequest(
                        kind=RequestKind.REQUEST,
                        message=Request(self._next_id(), "tools/list", msgspec.json.encode(params)),
                        revision=NEWEST,
                        headers=request.headers,
                        timeout_s=request.timeout_s,
                        hash_keys=request.hash_keys,
                    )
                    answer = await self._wire.exchange(asked, ignore_events)
                    result = answer.response.result if answer.response is not None else b""
                    if not result:
                        break
                    tools.update(known_tools(result))
                    values = jsonrpc.members(result)
                    ttl_ms = msgspec.json.decode(values.get("ttlMs", Raw(b"0")), type=int)
                    cursor = values.get("nextCursor")
                    if cursor is None or bytes(cursor) == jsonrpc.NULL:
                        break
        except (UpstreamError, TimeoutError, msgspec.DecodeError, RecursionError) as error:
            _logger.warning("backend %s: its tools could not be read: %r", self._backend, error)
        self._tools = tools
        self._tools_until_s = time.monotonic() + max(_KEPT_S, ttl_ms / 1000)

    def _next_id(self) -> bytes:
        """Unlike any other id at the same server."""
        return b'"%b.t%d"' % (self._id_prefix.encode(), next(self._ids))
