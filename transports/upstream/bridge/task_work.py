"""The work behind a task that the gateway keeps."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.eras.questions import input_request
from mcp_gateway.transports.protocol.mcp.jsonrpc import Response

from .parkable_call import ParkableCall
from .server_sessions import ServerSessions

_logger = logging.getLogger(__name__)

Ask = Callable[[str, bytes], Awaitable[Response]]
"""Puts a question of the server, (method, params), to the client; gives its response, whose id says nothing."""


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


class RoundsWork:
    """A call to a modern server, which asks by results: each question waits here until somebody comes with an answer.

    changed: set, and another one from then on, whenever there is something new.
    """

    def __init__(self, run: Callable[[Ask], Awaitable[Response]]) -> None:
        self.outcome: UpstreamAnswer | UpstreamError | None = None
        self.changed = asyncio.Event()
        self._questions: dict[str, tuple[str, bytes, asyncio.Future[Response]]] = {}
        self._numbers = itertools.count(1)
        self._task = asyncio.ensure_future(run(self._ask))
        self._task.add_done_callback(self._has_ended)

    def asked(self) -> dict[str, dict[str, Any]]:
        return {key: input_request(method, params) for key, (method, params, _) in self._questions.items()}

    def question(self, key: str) -> tuple[str, bytes]:
        """(method, params) of one of `asked`."""
        return self._questions[key][:2]

    async def answer(self, inputs: Mapping[str, bytes]) -> None:
        for key, value in inputs.items():
            self.respond(key, Response(b"0", value, b""))

    def respond(self, key: str, response: Response) -> None:
        """The same for one question, whose answer may be an error."""
        asked = self._questions.pop(key, None)
        if asked is not None:
            asked[2].set_result(response)
            self._tell()

    def cancel(self) -> None:
        self._task.cancel()

    async def over(self) -> None:
        await asyncio.wait({self._task})

    def _ask(self, method: str, params: bytes) -> asyncio.Future[Response]:
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._questions[f"{method.partition('/')[0]}-{next(self._numbers)}"] = method, params, answered
        self._tell()
        return answered

    def _has_ended(self, task: asyncio.Task[Response]) -> None:
        if task.cancelled():
            self.outcome = UpstreamError(Fate.ENDED, "the call was cancelled")
        elif (error := task.exception()) is None:
            self.outcome = UpstreamAnswer(200, task.result())
        elif isinstance(error, UpstreamError):
            self.outcome = error
        else:  # a defect of ours must not leave a client waiting
            _logger.error("a task failed", exc_info=error)
            self.outcome = UpstreamError(Fate.BROKEN, "internal error")
        self._questions.clear()
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
