"""A call that runs as a task on its legacy client's own session, at a server that would only answer it at its end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.questions import (
    MOST_OPEN_QUESTIONS,
    MOST_QUESTIONS,
    input_request,
    one_question_too_many,
)
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.tasks import RELATED_TASK
from mcp_gateway.transports.protocol.sealed.task_ids import question_id
from mcp_gateway.transports.telemetry import metrics

_logger = logging.getLogger(__name__)

_HELD: Final = 64
"""Notifications that are kept until somebody comes for the result; the oldest make room."""
_MESSAGE_S: Final = 10.0

Send = Callable[[UpstreamRequest, EventHandler], Awaitable[UpstreamAnswer]]


class SessionCall:
    """Implements `TaskWork`. Whoever comes for its result is put the server's questions, in the server's own words.

    send:    speaks to the server. request: the call, under an id that its client does not use.
    outcome: how it ended.
    """

    def __init__(self, send: Send, request: UpstreamRequest) -> None:
        self.outcome: UpstreamAnswer | UpstreamError | None = None
        self._send = send
        self._request = request
        self._questions: dict[str, Request] = {}  # {key: the server's request} that nobody has answered
        self._withdrawn: set[str] = set()
        self._held: deque[Notification] = deque(maxlen=_HELD)
        self._asked = 0
        self._news = asyncio.Event()
        self._saying = HeldTasks()
        self._task = asyncio.ensure_future(send(request, self._hear))
        self._task.add_done_callback(self._ended)

    # ---- the client's side

    async def refused(self, timeout_s: float) -> UpstreamError | None:
        """Why the server has not run it, where that shows within this time."""
        await asyncio.wait({self._task}, timeout=timeout_s)
        return self.outcome if isinstance(self.outcome, UpstreamError) and not self.outcome.fate.was_sent else None

    def asked(self) -> dict[str, dict[str, Any]]:
        return {key: input_request(question.method, question.params) for key, question in self._questions.items()}

    async def answer(self, inputs: Mapping[str, bytes]) -> None:
        for key, value in inputs.items():
            await self.respond(key, Response(b"0", value, b""))

    async def respond(self, key: str, response: Response) -> None:
        """What the client says to one question; what is not asked any more goes nowhere.

        Raises: UpstreamError.
        """
        question = self._questions.pop(key, None)
        if question is not None:
            await self._say(response.to(question.id))

    async def attend(self, on_event: EventHandler, task_id: str) -> None:
        """Source: MCP 2025-11-25, basic/utilities/tasks, "Input Required Status" and "Associating Task-Related Messages"."""
        put: set[str] = set()
        while True:
            news = self._news
            while self._held:
                await on_event(self._held.popleft(), None)
            for key in put & self._withdrawn:
                put.discard(key)
                params = msgspec.json.encode({"requestId": question_id(task_id, key), "reason": "the server has withdrawn it"})
                await on_event(Notification("notifications/cancelled", params), None)
            for key in self._questions.keys() - put:
                put.add(key)
                await on_event(self._put(key, task_id), None)
            if self.outcome is not None:
                return
            await news.wait()

    async def over(self) -> None:
        await asyncio.wait({self._task})

    def cancel(self) -> None:
        """Source: MCP 2025-11-25, basic/utilities/cancellation: to leave an HTTP stream cancels nothing."""
        if self.outcome is None:
            assert isinstance(self._request.message, Request)
            params = msgspec.json.encode({"requestId": Raw(self._request.message.id), "reason": "its task was cancelled"})
            self._say_later(Notification("notifications/cancelled", params))
            self._task.cancel()

    def _put(self, key: str, task_id: str) -> Request:
        question = self._questions[key]
        params = jsonrpc.members(question.params)
        meta = jsonrpc.members(bytes(params.get("_meta", Raw(b"{}"))))
        meta[RELATED_TASK] = Raw(msgspec.json.encode({"taskId": task_id}))
        params["_meta"] = Raw(msgspec.json.encode(meta))
        return Request(msgspec.json.encode(question_id(task_id, key)), question.method, msgspec.json.encode(params))

    # ---- the server's side

    async def _hear(self, message: Message | None, event_id: str | None) -> None:
        if isinstance(message, Request):
            self._hear_question(message)
        elif isinstance(message, Notification):
            if message.method == "notifications/cancelled" and self._withdraw(message.params):
                return
            self._held.append(message)
            self._tell()

    def _hear_question(self, question: Request) -> None:
        if question.method == "ping":
            self._say_later(Response(question.id, b"{}", b""))
            return
        try:
            input_request(question.method, question.params)
            jsonrpc.members(bytes(jsonrpc.members(question.params).get("_meta", Raw(b"{}"))))
            is_readable = True
        except (msgspec.DecodeError, RecursionError):
            is_readable = False
        if not is_readable or len(self._questions) >= MOST_OPEN_QUESTIONS or self._asked >= MOST_QUESTIONS:
            if is_readable:
                metrics.bounds_reached_total.labels("questions").inc()
            self._say_later(one_question_too_many(question))
            return
        self._asked += 1
        self._questions[f"{question.method.partition('/')[0]}-{self._asked}"] = question
        self._tell()

    def _withdraw(self, params: bytes) -> bool:
        """Whether the server has taken back one of its questions."""
        try:
            withdrawn = jsonrpc.id_value(bytes(jsonrpc.members(params)["requestId"]))
        except (KeyError, msgspec.DecodeError):
            return False
        for key, question in self._questions.items():
            if jsonrpc.id_value(question.id) == withdrawn:
                del self._questions[key]
                self._withdrawn.add(key)
                self._tell()
                return True
        return False

    def _ended(self, task: asyncio.Future[UpstreamAnswer]) -> None:
        error = UpstreamError(Fate.ENDED, "the call was cancelled") if task.cancelled() else task.exception()
        if error is None:
            self.outcome = task.result()
        elif isinstance(error, UpstreamError):
            self.outcome = error
        else:  # a defect of ours must not leave a client waiting
            _logger.error("a task failed", exc_info=error)
            self.outcome = UpstreamError(Fate.BROKEN, "internal error")
        self._questions.clear()
        self._tell()

    async def _say(self, message: Message) -> None:
        told = msgspec.structs.replace(self._request, kind=RequestKind.MESSAGE, message=message, timeout_s=_MESSAGE_S)
        await self._send(told, ignore_events)

    def _say_later(self, message: Message) -> None:
        self._saying.start(self._quietly(message))

    async def _quietly(self, message: Message) -> None:
        try:
            await self._say(message)
        except UpstreamError as error:
            _logger.debug("the server of a task cannot be told: %s", error.failure.text)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
