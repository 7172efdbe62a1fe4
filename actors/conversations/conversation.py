"""What all conversations share: one serves one exchange, from the client's message to the answer it reads.

How an exchange becomes calls to backends and their outcomes an answer: plain state machines, no actor. The edge feeds them
outcomes; they speak through a `Desk` (calls out) and a sink (answers).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import msgspec
from msgspec import Raw
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.calls import CallAnswered, CallEvent, CallFailed
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.change_notifications import LIST_CHANGES
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.protocol.mcp.modern_rules import unsupported_version
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS, is_modern
from mcp_gateway.transports.protocol.merging.naming import Naming, outer_notification
from mcp_gateway.transports.protocol.sealed.question_ids import QuestionId
from mcp_gateway.transports.protocol.sealed.session import SessionState

from .desk import CallWish, Desk
from .held_changes import CHANGE_WINDOW_S, HeldChanges

_CANCELLED: Final = "notifications/cancelled"
_KNOWN: Final = "known"
MAX_ATTEMPTS = 4
"""Replicas that one call may try, the first included; only calls that never reached a server try again."""

_UNREADABLE = (msgspec.DecodeError, RecursionError)
"""Messages are checked as JSON when they arrive, but numbers beyond any range, or nesting near the limit, only fail here."""


class Conversation:
    """What all conversations share: the open calls, the sink, and credit for events the client has taken."""

    def __init__(self, exchange: Exchange, sink: AnswerSink, desk: Desk) -> None:
        self.exchange = exchange
        self.sink = sink
        self.desk = desk
        self._open_calls: set[int] = set()
        self._has_begun = False
        self._is_over = False
        self._turned_away: dict[str, CallFailed] = {}  # {backend: how the last replica that was tried for it refused}
        # Whose event the client reads next; None for one that the gateway wrote itself.
        self._unflushed: deque[tuple[ActorAddress, int] | None] = deque()
        self._changes = HeldChanges()
        self._changed: SessionState | None = None  # where the client has changed what is kept of its session
        # What follows once all cells know that; None for the end. One that is always there would hold itself, and its answer.
        self._known_then: Callable[[], None] | None = None

    # ---- what the edge feeds: what cannot be read ends this exchange and leaves the edge alone

    def start(self) -> None:
        """Make the first calls."""
        try:
            self._start()
        except _UNREADABLE as error:
            text = f"the parameters cannot be read: {error}"
            self._refuse(Refused("invalid_params", text, request_id=self._request_id()), "")

    def answered(self, answer: CallAnswered) -> None:
        self._open_calls.discard(answer.call_id)
        if self._is_over:
            return
        try:
            self._on_answer(answer)
        except _UNREADABLE as error:
            self._refuse_unreadable(answer.backend, error)

    def failed(self, failure: CallFailed) -> None:
        self._open_calls.discard(failure.call_id)
        if has_turned_away(failure):
            self._turned_away[failure.backend] = failure
        elif _leaves_no_replica(failure):
            # What the last one said ("pool_exhausted") tells the client more.
            said = self._turned_away.get(failure.backend, failure)
            failure = attrs.evolve(said, call_id=failure.call_id)
        if not self._is_over:
            self._on_failure(failure)

    def event(self, event: CallEvent) -> None:
        if self._is_over:
            return
        try:
            self._on_event(event)
        except _UNREADABLE as error:
            self._refuse_unreadable(event.backend, error)

    def delay_passed(self, cause: str) -> None:
        """What `Desk.retry_later` was asked for is due."""
        if cause == _KNOWN:
            known_then, self._known_then = self._known_then or self._finish, None
            known_then()
        elif cause not in LIST_CHANGES:
            self.retry(cause)
        elif not self._is_over and (kept := self._changes.close(cause)):
            self._write(kept)
            self.desk.retry_later(self.exchange, CHANGE_WINDOW_S, cause)

    def retry(self, backend: str) -> None:
        """A delay has passed."""

    def backends_changed(self) -> None:
        """Others are configured from now on, see `Desk.namings`: what stays open takes them in."""

    def session_renewed(self, session: SessionState) -> None:
        """Somebody has opened the session of a stream again at one of its servers. session: as it is now."""

    def flushed(self, event_count: int) -> None:
        """The client has taken events: the servers they came from may send as many again."""
        granted: dict[int, tuple[ActorAddress, int]] = {}
        for _ in range(min(event_count, len(self._unflushed))):
            taken = self._unflushed.popleft()
            if taken is None:
                continue
            upstream, call_id = taken
            granted[call_id] = (upstream, granted.get(call_id, (upstream, 0))[1] + 1)
        for call_id, (upstream, count) in granted.items():
            self.desk.grant(upstream, call_id, count)

    def client_gone(self) -> None:
        self._finish()

    def end(self) -> None:
        """The gateway drains: end this stream so that its client can come back elsewhere."""
        if self._is_over:
            return
        if self._has_begun:
            self.sink.end("", 0.0)
            self._finish()
        else:
            self._refuse(Refused("draining", "the gateway is draining", request_id=self._request_id()), "")

    def expired(self) -> None:
        """The deadline has passed and no call has said so: an actor died with the call in its hands."""
        self._refuse(Refused("upstream_timeout", "no answer in time", request_id=self._request_id()), "")

    # ---- what each kind decides

    def _start(self) -> None:
        raise NotImplementedError

    def _on_answer(self, answer: CallAnswered) -> None:
        raise NotImplementedError

    def _on_failure(self, failure: CallFailed) -> None:
        raise NotImplementedError

    def _on_event(self, event: CallEvent) -> None:
        """A message before the answer: not expected by conversations whose calls are lists and the like, so only credited."""
        self.desk.grant(event.upstream, event.call_id, 1)

    # ---- what conversations use

    def _call(self, wish: CallWish) -> int:
        call_id = self.desk.call(self.exchange, wish)
        self._open_calls.add(call_id)
        return call_id

    def _cancel(self, call_id: int) -> None:
        self._open_calls.discard(call_id)
        self.desk.cancel(call_id)

    def _dismiss(self, session: SessionState, backend: str) -> None:
        self.desk.dismiss(self.exchange, session, backend)

    def _finish(self) -> None:
        """End the exchange, once; no call outlives it."""
        if self._is_over:
            return
        self._is_over = True
        for call_id in self._open_calls:
            self.desk.cancel(call_id)
        self._open_calls.clear()
        self.desk.conclude(self.exchange)

    def _answer(self, status: int, body: Pieces, headers: dict[str, str], backend: str, upstream_s: float) -> None:
        if self._is_over:
            return
        if self._has_begun:
            if body:
                self.sink.event(joined(body), None)
            self.sink.end(backend, upstream_s)
        else:
            self.sink.answer(status, body, headers, backend, upstream_s)
        self._finish()

    def _answer_once_known(self, status: int, body: Pieces, backend: str, upstream_s: float) -> None:
        """Answer, after every cell knows what the client has changed of its session: its next request may come to another one."""
        if self._changed is None or self.desk.tell_of_session(self.exchange, self._changed, _KNOWN):
            self._answer(status, body, {}, backend, upstream_s)
        else:
            self._known_then = functools.partial(self._answer, status, body, {}, backend, upstream_s)

    def _refuse(self, refused: Refused, backend: str) -> None:
        if self._is_over:
            return
        self.sink.refuse(refused, backend)
        self._finish()

    def _refuse_unreadable(self, backend: str, error: Exception) -> None:
        text = f"backend {backend!r} sent what cannot be read: {error}"
        self._refuse(Refused("upstream_failed", text, request_id=self._request_id()), backend)

    def _request_id(self) -> bytes | None:
        message = self.exchange.message
        return message.id if isinstance(message, Request) else None

    def _refusal_for(self, failure: CallFailed) -> Refused:
        if failure.why.fate is Fate.UNSUPPORTED:
            refused = unsupported_version(self.exchange.revision, self._request_id())
            refused.data["supported"] = list(LEGACY_REVISIONS)
            return refused
        data: dict[str, object] = {"backend": failure.backend} if failure.backend else {}
        if failure.why.consent_url:
            data["url"] = failure.why.consent_url
        if failure.why.error:
            data["upstream_error"] = Raw(failure.why.error)
        status = 404 if failure.why.reason == "unknown_method" and is_modern(self.exchange.revision) else None
        return Refused(
            failure.why.reason,
            failure.why.text,
            request_id=self._request_id(),
            data=data,
            status=status,
            retry_after_s=failure.why.retry_after_s,
            upstream_s=failure.upstream_s,
        )

    def _forward(self, event: CallEvent, data: bytes, event_id: str | None) -> None:
        """Send one event to the client, or take it as read where the client reads no stream, the event says nothing to it, or it
        is not for this client any more.
        """
        is_heard = self.exchange.takes_events and self.desk.may_hear(self.exchange, event.backend, event.message)
        if not is_heard or (not data and event_id is None):
            self.desk.grant(event.upstream, event.call_id, 1)
            return
        if not self._has_begun:
            self._has_begun = True
            self.sink.begin({})
        self._unflushed.append((event.upstream, event.call_id))
        self.sink.event(data, event_id)

    def _forward_merged(self, event: CallEvent, data: bytes, event_id: str | None) -> None:
        """The same for one of several servers: what says only that a list has changed is said once for all of them."""
        method = event.message.method if isinstance(event.message, Notification) else ""
        if method not in LIST_CHANGES:
            self._forward(event, data, event_id)
        elif self._changes.passes(method, data):
            self._forward(event, data, event_id)
            self.desk.retry_later(self.exchange, CHANGE_WINDOW_S, method)
        else:
            self.desk.grant(event.upstream, event.call_id, 1)

    def _outer(self, naming: Naming | None, event: CallEvent, session: SessionState | None) -> bytes:
        """The event as the client reads it. session: in which the server has said it."""
        message = event.message
        if isinstance(message, Notification) and message.method != _CANCELLED:  # as most are; no id is in them
            return _outer_notification(naming, message)

        def outer_id(request_id: bytes) -> bytes:
            return self.desk.name_question(QuestionId.of(session, event.backend, request_id))

        return outer_message(naming, message, outer_id)

    def _tell_change(self, method: str, params: bytes) -> None:
        """Say in the gateway's own name that a list has changed, on a stream that has begun."""
        data = jsonrpc.encode_notification(method, params)
        if self._changes.passes(method, data):
            self._write(data)
            self.desk.retry_later(self.exchange, CHANGE_WINDOW_S, method)

    def _write(self, data: bytes) -> None:
        """Send an event of the gateway's own on a stream that has begun."""
        self._unflushed.append(None)
        self.sink.event(data, None)


def stands_alone_for(exchange: Exchange, namings: Sequence[Naming]) -> bool:
    """Whether the client speaks to one server, whose own words it reads. A virtual server is never that."""
    return len(namings) == 1 and not exchange.server and (bool(exchange.endpoint) or not namings[0].prefix)


def may_go_elsewhere(failure: CallFailed, excluded: frozenset[str]) -> bool:
    """Whether another replica may get the call: this one never saw it, and there is an attempt left.

    excluded: the replicas that failed before this one.
    """
    return has_turned_away(failure) and failure.replica not in excluded and len(excluded) + 1 < MAX_ATTEMPTS


def has_turned_away(failure: CallFailed) -> bool:
    """Whether the replica that never saw the call should be passed over, unless it only lost the session, or is starting."""
    fate = failure.why.fate
    return bool(failure.replica) and not fate.was_sent and fate not in (Fate.SESSION_LOST, Fate.STARTING, Fate.UNAUTHORIZED)


def _leaves_no_replica(failure: CallFailed) -> bool:
    """Whether every replica was tried, or none can take the call."""
    why = failure.why
    return not failure.replica and why.fate is not Fate.SESSION_LOST and why.reason in ("upstream_failed", "no_backend")


def outer_message(naming: Naming | None, message: Message | None, outer_id: Callable[[bytes], bytes]) -> bytes:
    """The bytes of a server's message for the client. outer_id: of the server's id of a question, both as JSON."""
    if message is None:
        return b""
    if isinstance(message, Notification):
        return _outer_notification(naming, _outer_cancellation(message, outer_id) if message.method == _CANCELLED else message)
    if isinstance(message, Request):
        message = Request(outer_id(message.id), message.method, message.params)
    return jsonrpc.encode(message)


def _outer_notification(naming: Naming | None, message: Notification) -> bytes:
    params = message.params if naming is None else outer_notification(naming, message.method, message.params)
    return jsonrpc.encode_notification(message.method, params)


def _outer_cancellation(message: Notification, outer_id: Callable[[bytes], bytes]) -> Notification:
    """A server takes a question back: the client knows that by its outer id."""
    try:
        values = jsonrpc.members(message.params)
        values["requestId"] = Raw(outer_id(bytes(values["requestId"])))
    except (KeyError, msgspec.DecodeError):
        return message
    return Notification(message.method, msgspec.json.encode(values))


def outer_event_id(naming: Naming | None, event_id: str | None) -> str | None:
    return event_id if naming is None or event_id is None else f"{naming.backend}:{event_id}"
