"""Which tools of a legacy server may or must be called as tasks, read from it once for every client."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.eras.tasks import task_support
from mcp_gateway.transports.protocol.mcp import jsonrpc

_PAGES: Final = 100
READING_S: Final = 10.0
_KEPT_S: Final = 60.0
FORBIDDEN: Final = "forbidden"

ListTools = Callable[[bytes], Awaitable[UpstreamAnswer]]
"""Asks the server for a page of its tools, with these params, on a session of whoever wants to know. Raises: UpstreamError."""


def tool_name(params: Mapping[str, Raw]) -> str:
    """The tool that a call names; "" where it names none: its server shall say what is wrong with it."""
    try:
        return msgspec.json.decode(params.get("name", Raw(b'""')), type=str)
    except msgspec.DecodeError:
        return ""


class ToolSupport:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Tool-Level Negotiation"."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._known_until_s = 0.0

    async def of(self, name: str, list_tools: ListTools, *, has_tasks: bool) -> str:
        """ "required", "optional" or "forbidden". has_tasks: the server has said that it takes calls as tasks, or may have."""
        if not has_tasks:
            return FORBIDDEN
        if time.monotonic() > self._known_until_s:
            await self._read(list_tools)
        return self._known.get(name, FORBIDDEN)

    async def _read(self, list_tools: ListTools) -> None:
        """A server that cannot list its tools says itself how it wants to be called."""
        found: dict[str, str] = {}
        params = b""
        try:
            for _ in range(_PAGES):
                answer = await list_tools(params)
                result = answer.response.result if answer.response is not None else b""
                if not result:
                    break
                found.update(task_support(result))
                cursor = jsonrpc.members(result).get("nextCursor")
                if cursor is None or bytes(cursor) == jsonrpc.NULL:
                    break
                params = msgspec.json.encode({"cursor": cursor})
        except (UpstreamError, msgspec.DecodeError, RecursionError):
            pass
        self._known, self._known_until_s = found, time.monotonic() + _KEPT_S
