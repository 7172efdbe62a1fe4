"""The work behind a task that the gateway keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError

from .parkable_call import ParkableCall
from .server_sessions import ServerSessions


class ServerTask:
    """A task that a legacy server runs itself, for a modern client. following: its `tasks/result`, on the task's own session."""

    def __init__(self, following: ParkableCall, sessions: ServerSessions, task_id: str) -> None:
        self._following = following
        self._sessions = sessions
        self._task_id = task_id

    @property
    def outcome(self) -> UpstreamAnswer | UpstreamError | None:
        return self._following.outcome

    def asked(self) -> dict[str, dict[str, Any]]:
        return self._following.asked()

    async def answer(self, inputs: Mapping[str, bytes]) -> None:
        await self._following.answer(inputs)

    def cancel(self) -> None:
        """Source: MCP 2025-11-25, "Task Cancellation": a task is cancelled by a request of its own."""
        params = msgspec.json.encode({"taskId": self._task_id})
        self._sessions.ask_later(self._following.session, "tasks/cancel", params)
        self._following.cancel()

    async def over(self) -> None:
        await self._following.over()
