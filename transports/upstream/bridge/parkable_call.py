"""One request that runs at a legacy server for a modern client; it goes on while the client is away, answering a question."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import owner_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.questions import (
    CAPABILITY_FOR,
    MAY_NEED_INPUT,
    MOST_OPEN_QUESTIONS,
    MOST_QUESTIONS,
    capability_problem,
    input_request,
    one_question_too_many,
    refused_question,
)
from mcp_gateway.transports.protocol.eras.revision_differences import fitted_answer
from mcp_gateway.transports.protocol.eras.translation import ModernRequest
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.change_notifications import LIST_CHANGES, RESOURCE_UPDATED
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import LOG_LEVELS
from mcp_gateway.transports.protocol.mcp.tasks import offers_extension
from mcp_gateway.transports.telemetry import metrics

from .server_sessions import ServerSession, ServerSessions
from .subscription_hub import SubscriptionHub

_logger = logging.getLogger(__name__)

_HELD_EVENTS: Final = 64
"""Notifications that are kept for a client that is away; beyond them the server's stream is not read on."""

# What does not concern the request during which a legacy server says it: changes belong on the stream of a subscription, and
# some has no meaning any more. Source: MCP 2026-07-28, basic/transports/streamable-http, "Receiving Messages"; changelog.
_CHANGES: Final = frozenset({*LIST_CHANGES, RESOURCE_UPDATED})
_WITHOUT_MEANING: Final = frozenset({"notifications/elicitation/complete", "notifications/tasks/status"})


@attrs.frozen
class Round:
    """One request of a modern client: a call's first, or a retry that brings answers. modern: the message, taken apart."""

    request: UpstreamRequest
    message: Request
    modern: ModernRequest
    on_event: EventHandler

    @property
    def owner(self) -> str:
        return owner_of(self.request.hash_keys)

    @property
    def knows_tasks(self) -> bool:
        """Whether its client may be answered with a task. Source: SEP-2663: regardless of what other requests have declared."""
        return offers_extension(self.modern.capabilities)

    def answered(self, result: bytes) -> UpstreamAnswer:
        return UpstreamAnswer(200, Response(self.message.id, result, b""))

    def refused(self, error: bytes, status: int) -> UpstreamAnswer:
        return UpstreamAnswer(status, Response(self.message.id, b"", error))


class ParkableCall:
    """The request on the wire, the questions that wait, and the exchange of the client that is here now, if any.

    name:      known to nobody who has not been given it.
    questions: {key: the server's request}, oldest first, that no client has answered.
    number:    of the last question round; 0 before the first.
    is_augmented: the server may make a task of it, which will need the session.
    outcome:   how it ended.
    hub:       gives who listens to changes with the same kind of session, now.
    """

    def __init__(
        self,
        wire: UpstreamConversation,
        sessions: ServerSessions,
        session: ServerSession,
        first: Round,
        hub: Callable[[], SubscriptionHub | None],
    ) -> None:
        self.name = secrets.token_urlsafe(12)
        self.session = session
        self.method = first.message.method
        self.questions: dict[str, Request] = {}
        self.number = 0
        self.is_attended = False
        self.is_augmented = False
        self.outcome: UpstreamAnswer | UpstreamError | None = None
        self.expiry: asyncio.TimerHandle | None = None
        self._sessions = sessions
        self._hub = hub
        self._capabilities = first.modern.capabilities
        self._request_id = session.next_id()
        self._wire_token = self._request_id
        self._on_event: EventHandler | None = None
        self._client_token: bytes | None = None
        self._log_level: str | None = None
        self._held: deque[Notification] = deque()
        self._news = asyncio.Event()
        self._arrived = asyncio.Event()
        self._draining = asyncio.Lock()
        self._asked = 0
        self._is_unheard = False
        params = first.modern.legacy_params(self._wire_token if first.modern.progress_token is not None else None)
        request = UpstreamRequest(
            kind=RequestKind.REQUEST,
            message=Request(self._request_id, self.method, params),
            revision=session.revision,
            session_id=session.session_id,
            headers=first.request.headers,
            hash_keys=first.request.hash_keys,
        )
        self._task = asyncio.get_running_loop().create_task(wire.exchange(request, self._hear))
        self._task.add_done_callback(self._ended)

    # ---- the client's side

    async def attend(self, current: Round) -> None:
        """Pass on what the server says, until it has ended the call or asks something."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        self.is_attended = True
        self._client_token, self._log_level = current.modern.progress_token, current.modern.log_level
        self._on_event = current.on_event
        self._arrived.set()
        try:
            await self._drain()
            while self.outcome is None and not self.questions:
                self._news.clear()
                await self._news.wait()
            await self._drain()
        finally:
            self.is_attended = False
            self._on_event = None
            self._arrived.clear()

    def asked(self) -> dict[str, dict[str, Any]]:
        """The open questions as `inputRequests`."""
        return {key: input_request(question.method, question.params) for key, question in self.questions.items()}

    async def answer(self, inputs: Mapping[str, bytes]) -> None:
        """Hand the client's answers to the server; what it did not ask is left out.

        inputs: objects as JSON.

        Raises: UpstreamError where the server cannot be reached.
        """
        for key in [key for key in inputs if key in self.questions]:
            question = self.questions.pop(key)
            value = inputs[key]
            if question.method == "sampling/createMessage":
                fitted = fitted_answer(question.method, msgspec.json.decode(value), self.session.revision)
                value = msgspec.json.encode(fitted)
            await self._sessions.say(self.session, Response(question.id, value, b""))

    def go_on_unheard(self) -> None:
        """Nobody will read what the server tells meanwhile: its client comes for questions and the outcome alone.

        Source: SEP-2663, "Task Status Notifications": progress and log messages are not supported on tasks.
        """
        self._is_unheard = True
        self._held.clear()
        self._arrived.set()

    async def over(self) -> None:
        """Wait until it has ended."""
        await asyncio.wait({self._task})

    def cancel(self) -> None:
        """Nobody waits for it any more. Source: MCP 2025-11-25, basic/utilities/cancellation."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        if self.outcome is None:
            params = b'{"requestId":%b,"reason":"the client has gone"}' % self._request_id
            self._sessions.say_later(self.session, Notification("notifications/cancelled", params))
            if self.session.key.is_exclusive:
                self._sessions.abandon(self.session)
                self._tell_hub_of_loss()
            self._task.cancel()

    def _tell_hub_of_loss(self) -> None:
        if (hub := self._hub()) is not None:
            hub.follow(self.session)

    # ---- the server's side

    def _ended(self, task: asyncio.Task[UpstreamAnswer]) -> None:
        error = UpstreamError(Fate.ENDED, "the call was cancelled") if task.cancelled() else task.exception()
        if error is None:
            self.outcome = task.result()
        elif isinstance(error, UpstreamError):
            self.outcome = error
            if error.fate is Fate.SESSION_LOST:
                self._sessions.forget(self.session)
                self._tell_hub_of_loss()
        else:  # a defect of ours must not leave a client waiting
            _logger.error("a call failed", exc_info=error)
            self.outcome = UpstreamError(Fate.BROKEN, "internal error")
        self._news.set()
        self._sessions.give_back(self.session)

    async def _hear(self, message: Message | None, event_id: str | None) -> None:
        if isinstance(message, Request):
            if len(self.questions) >= MOST_OPEN_QUESTIONS or self._asked >= MOST_QUESTIONS:
                metrics.bounds_reached_total.labels("questions").inc()
                with suppress(UpstreamError):
                    await self._sessions.say(self.session, one_question_too_many(message))
            else:
                self._hear_question(message)
        elif isinstance(message, Notification):
            if message.method == "notifications/cancelled":
                self._withdraw(message.params)
            elif message.method in _CHANGES:
                if (hub := self._hub()) is not None:
                    hub.tell(message)
            elif message.method not in _WITHOUT_MEANING and not self._is_unheard:
                self._held.append(message)
                if len(self._held) >= _HELD_EVENTS:
                    await self._arrived.wait()
                await self._drain()

    def _hear_question(self, question: Request) -> None:
        if question.method == "ping":
            self._sessions.say_later(self.session, Response(question.id, b"{}", b""))
            return
        try:
            params = msgspec.json.decode(question.params or b"{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            params = {}
        is_known = question.method in CAPABILITY_FOR and (self.method in MAY_NEED_INPUT or self.method == "tasks/result")
        required = capability_problem(question.method, params, self._capabilities) if is_known else {}
        if not is_known or required:
            self._sessions.say_later(self.session, refused_question(question, required))
            return
        self._asked += 1
        self.questions[f"{question.method.partition('/')[0]}-{self._asked}"] = question
        self._news.set()

    def _withdraw(self, params: bytes) -> None:
        """The server no longer waits for one of its questions."""
        try:
            withdrawn = jsonrpc.id_value(bytes(jsonrpc.members(params)["requestId"]))
        except (KeyError, msgspec.DecodeError):
            return
        self.questions = {key: each for key, each in self.questions.items() if jsonrpc.id_value(each.id) != withdrawn}

    async def _drain(self) -> None:
        """Write what is held, in order, as far as a client is here to read it."""
        async with self._draining:
            while self._held and self._on_event is not None:
                shown = self._shown(self._held.popleft())
                if shown is not None:
                    await self._on_event(shown, None)

    def _shown(self, notification: Notification) -> Notification | None:
        """A notification as this client shall see it, or None where it has not asked for it."""
        try:
            if notification.method == "notifications/progress":
                values = jsonrpc.members(notification.params)
                if self._client_token is None or bytes(values["progressToken"]) != self._wire_token:
                    return None
                values["progressToken"] = msgspec.Raw(self._client_token)
                return Notification(notification.method, msgspec.json.encode(values))
            if notification.method == "notifications/message":
                level = msgspec.json.decode(jsonrpc.members(notification.params)["level"], type=str)
                is_wanted = self._log_level is not None and LOG_LEVELS.index(level) >= LOG_LEVELS.index(self._log_level)
                return notification if is_wanted else None
        except (KeyError, ValueError, msgspec.DecodeError):
            return None
        return notification
