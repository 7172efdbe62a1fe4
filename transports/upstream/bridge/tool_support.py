"""Which tools of a legacy server may or must be called as tasks, read from it once for every client."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.eras.tasks import task_support
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.tasks import offers_task_calls

from .server_sessions import ServerSession, ServerSessions

_PAGES: Final = 100
_READING_S: Final = 10.0
_KEPT_S: Final = 60.0
FORBIDDEN: Final = "forbidden"


class ToolSupport:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Tool-Level Negotiation"."""

    def __init__(self, sessions: ServerSessions) -> None:
        self._sessions = sessions
        self._known: dict[str, str] = {}
        self._known_until_s = 0.0

    async def of(self, session: ServerSession, name: str) -> str:
        """ "required", "optional" or "forbidden". session: lent to whoever asks."""
        if not offers_task_calls(session.initialized.get("capabilities")):
            return FORBIDDEN
        if time.monotonic() > self._known_until_s:
            await self._read(session)
        return self._known.get(name, FORBIDDEN)

    async def _read(self, session: ServerSession) -> None:
        """A server that cannot list its tools says itself how it wants to be called."""
        found: dict[str, str] = {}
        params = b""
        try:
            for _ in range(_PAGES):
                answer = await self._sessions.ask(session, "tools/list", params, _READING_S)
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
