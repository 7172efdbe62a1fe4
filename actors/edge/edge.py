"""The actor that carries out what clients ask: each exchange becomes a conversation, its calls go to the router."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec
from thespian.actors import ActorAddress

from mcp_gateway.actors.conversations.conversation_choice import conversation_for
from mcp_gateway.actors.messages.calls import (
    Call,
    CallAnswered,
    CallEvent,
    CallFailed,
    CallKind,
    CancelCall,
    CreditGranted,
    RouteCall,
)
from mcp_gateway.actors.messages.events import EventPublished, EventsLogged, FollowLog, PublishEvent, Subscribe
from mcp_gateway.actors.messages.exchanges import (
    ChildAsked,
    ClientEventsWaiting,
    EventsFlushed,
    ExchangeClosed,
    ExchangeOpened,
    StreamEnded,
)
from mcp_gateway.actors.messages.topology import GatewayWired, Topology
from mcp_gateway.actors.messages.transports import RegisterTransport, TransportRefused, TransportRegistered, TransportsChanged
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange, ExchangeKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.telemetry import metrics

from .late_backends import FAN_OUT_S, LateBackends
from .loop_port import LoopPort

_SESSION_ENDED = "mcp.session.ended"
_SWEEP_S = 1.0
_REFRESHED_AT_ONCE = 50  # sessions with streams, each second: a read of the journal takes some ten microseconds
_GRACE_S = 2.0
"""After an exchange's own deadline: the upstream reports the timeout first; the sweep is for calls whose actor has died."""


class Edge(GatewayActor):
    """Carries out exchanges: each becomes a conversation, its calls go to the router, its answer to the client's sink.

    Receives  ExchangeOpened, ExchangeClosed, EventsFlushed, StreamEnded, ChildAsked (handlers, cell), CallAnswered,
              CallEvent, CallFailed (upstreams, connection pool, router), GatewayWired, Topology (cell supervisor),
              EventPublished, EventsLogged (event bus), ClientEventsWaiting (topic feed)
    Sends     RouteCall (router), CancelCall (connection pool), CreditGranted (upstreams), RegisterTransport (transport registry),
              Subscribe, FollowLog, PublishEvent (event bus)
    On crash  clients that waited for an answer read `upstream_failed`; streams of sessions are opened again; sessions live on in
              their sealed ids
    """

    def __init__(self) -> None:
        super().__init__()
        self._gateway: dict[str, ActorAddress] = {}
        self._incarnations: dict[str, int] = {}
        self._late_backends = LateBackends()
        self._call_ids = itertools.count(1)

    def on_wired(self) -> None:
        self._port: LoopPort = self.arguments
        self._exchanges = self._port.exchanges
        settings = self._port.settings
        self.server_info = {"name": "mcp-gateway", "version": VERSION}
        self._topology(settings.backends)
        # Ids of an earlier incarnation must not meet ours: the upstreams may still answer its calls.
        self._call_ids = itertools.count(self.incarnation * 1_000_000_000 + 1)
        assert self.runtime is not None
        self._port.attach(self.runtime, self.myAddress)
        self._take_over()
        self.start_timer("sweep", _SWEEP_S)

    def _take_over(self) -> None:
        """Answer for the exchanges of an incarnation that crashed: its calls are lost, and a tool must not run twice."""
        self._exchanges.start_over()
        for exchange, sink in self._exchanges.unserved():
            if exchange.kind is not ExchangeKind.STREAM:
                self._exchanges.settle(exchange.exchange_id)
                request_id = exchange.message.id if isinstance(exchange.message, Request) else None
                text = "the gateway's edge was restarted while the request ran"
                sink.refuse(Refused("upstream_failed", text, request_id=request_id), "")

    # ---- wiring

    def receiveMsg_GatewayWired(self, message: GatewayWired, sender: ActorAddress) -> None:
        """The chain is up, for the first time or again. Calls in a pool that is no more have no upstream left to answer them."""
        lost_pool = self._incarnations.get("connection-pool", 0) not in (0, message.incarnations["connection-pool"])
        self._gateway, self._incarnations = dict(message.addresses), dict(message.incarnations)
        self._gateway["cell-supervisor"] = self.addresses["supervisor"]
        self._port.wire(self._gateway)
        for strategy in self._port.downstream_transports:
            registration = RegisterTransport(request_id="edge", strategy=strategy)
            self.send(self._gateway["transport-registry"], registration)
        subscribe = Subscribe(pattern=_SESSION_ENDED, subscriber_id=self.name)
        self.send(self._gateway["event-bus"], subscribe)
        self.send(self._gateway["event-bus"], FollowLog(self._port.topics.last_id))
        self._publish_waiting()
        if lost_pool:
            self._fail_open_calls("the connection pool was restarted while the request ran")
        for exchange, sink in self._exchanges.unserved():
            self._open(exchange, sink)

    def _fail_open_calls(self, text: str) -> None:
        for call_id in self._exchanges.calls:
            failure = CallFailed(call_id=call_id, reason="upstream_failed", text=text, was_sent=True)
            self.receiveMsg_CallFailed(failure, self.myAddress)

    def receiveMsg_TransportsChanged(self, message: TransportsChanged, sender: ActorAddress) -> None:
        self._port.enable_transports(message.names)

    def receiveMsg_TransportRegistered(self, message: TransportRegistered, sender: ActorAddress) -> None:
        self._port.answer_question(message)

    def receiveMsg_TransportRefused(self, message: TransportRefused, sender: ActorAddress) -> None:
        self.log(logging.ERROR, f"a client transport was refused: {message.problem}")
        self._port.answer_question(message)

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        """What open streams are told of: other servers, not other limits for the same."""
        before = self._servers
        self._topology(message.backends)
        others = {name for name in before.keys() | self._servers.keys() if before.get(name) != self._servers.get(name)}
        if others:
            self._port.last_known_lists.forget(others)
            for conversation in self._exchanges.conversations():
                conversation.backends_changed()

    def _topology(self, backends: tuple[Any, ...]) -> None:
        self._late_backends.keep_only({backend.name for backend in backends})
        self._servers = {each.name: (each.prefix, each.replicas, each.command, each.builtin) for each in backends}
        self._namings = {backend.name: Naming(backend.name, backend.prefix) for backend in backends}
        self._alone = {backend.name: Naming(backend.name, "") for backend in backends}
        self._timeouts_s = {backend.name: backend.request_timeout for backend in backends}

    # ---- exchanges

    def receiveMsg_ExchangeOpened(self, message: ExchangeOpened, sender: ActorAddress) -> None:
        """Serve it, unless it has been closed since, or GatewayWired has opened it already or will."""
        exchange_id = message.exchange.exchange_id
        waits = self._exchanges.waiting.get(exchange_id)
        if waits is not None and self._gateway and self._exchanges.conversation(exchange_id) is None:
            self._open(*waits)

    def _open(self, exchange: Exchange, sink: AnswerSink) -> None:
        if exchange.session is not None:
            exchange = attrs.evolve(exchange, session=self._port.sessions.use(exchange.session, self.monotonic_s()))
        try:
            conversation = conversation_for(exchange, sink, self)
        except Refused as refused:
            self._exchanges.settle(exchange.exchange_id)
            sink.refuse(refused, exchange.endpoint)
            return
        self._exchanges.serve(conversation)
        conversation.start()

    def receiveMsg_ExchangeClosed(self, message: ExchangeClosed, sender: ActorAddress) -> None:
        conversation = self._exchanges.conversation(message.exchange_id)
        if conversation is not None:
            conversation.client_gone()
        self._exchanges.settle(message.exchange_id)

    def receiveMsg_EventsFlushed(self, message: EventsFlushed, sender: ActorAddress) -> None:
        conversation = self._exchanges.conversation(message.exchange_id)
        if conversation is not None:
            conversation.flushed(message.event_count)

    def receiveMsg_StreamEnded(self, message: StreamEnded, sender: ActorAddress) -> None:
        conversation = self._exchanges.conversation(message.exchange_id)
        if conversation is not None:
            conversation.end()

    # ---- outcomes of calls

    def receiveMsg_CallAnswered(self, message: CallAnswered, sender: ActorAddress) -> None:
        conversation = self._exchanges.end_call(message.call_id)
        if conversation is not None:
            conversation.answered(message)

    def receiveMsg_CallFailed(self, message: CallFailed, sender: ActorAddress) -> None:
        conversation = self._exchanges.end_call(message.call_id)
        if conversation is not None:
            conversation.failed(message)

    def receiveMsg_CallEvent(self, message: CallEvent, sender: ActorAddress) -> None:
        conversation = self._exchanges.of_call(message.call_id)
        if conversation is not None:
            conversation.event(message)

    # ---- what conversations may do (see `conversation.Desk`)

    def namings(self, endpoint: str) -> tuple[Naming, ...]:
        if endpoint:
            return (self._alone[endpoint],) if endpoint in self._alone else ()
        return tuple(self._namings.values())

    def call(
        self,
        exchange: Exchange,
        message: Message | None,
        *,
        kind: CallKind,
        backend: str = "",
        session: SessionState | None = None,
        opens_session: bool = False,
        excluded: frozenset[str] = frozenset(),
        deadline_s: float | None = None,
        last_event_id: str | None = None,
    ) -> int:
        call_id = next(self._call_ids)
        self._exchanges.begin_call(call_id, exchange.exchange_id)
        limit_s = self._timeouts_s.get(backend)
        if deadline_s is None:
            deadline_s = exchange.deadline_s
        if limit_s is not None and kind is not CallKind.STREAM:
            deadline_s = min(deadline_s, self.monotonic_s() + limit_s)
        call = Call(
            call_id=call_id,
            edge=self.myAddress,
            kind=kind,
            transport=exchange.transport,
            revision=exchange.revision,
            target=exchange.target,
            backend=backend,
            is_merged=not exchange.endpoint,
            message=message,
            session=session,
            opens_session=opens_session,
            hash_keys=exchange.hash_keys,
            headers=exchange.headers,
            deadline_s=deadline_s,
            excluded=excluded,
            last_event_id=last_event_id,
            pinned_to=self._port.pinned_to(message) if session is None else "",
        )
        self.send(self._gateway["router"], RouteCall(call))
        return call_id

    def cancel(self, call_id: int) -> None:
        if self._exchanges.end_call(call_id) is not None:
            self.send(self._gateway["connection-pool"], CancelCall(call_id))

    def dismiss(self, exchange: Exchange, session: SessionState, backend: str) -> None:
        deadline_s = self.monotonic_s() + FAN_OUT_S
        call_id = self.call(exchange, None, kind=CallKind.TERMINATE, backend=backend, session=session, deadline_s=deadline_s)
        self._exchanges.end_call(call_id)

    def grant(self, upstream: ActorAddress, call_id: int, event_count: int) -> None:
        self.send(upstream, CreditGranted(call_id, event_count))

    def conclude(self, exchange: Exchange) -> None:
        self._exchanges.settle(exchange.exchange_id)

    def retry_later(self, exchange: Exchange, delay_s: float, backend: str) -> None:
        assert self.runtime is not None
        self.runtime.post_later(delay_s, self.myAddress, _RetryDue(exchange.exchange_id, backend))

    def receiveMsg__RetryDue(self, message: _RetryDue, sender: ActorAddress) -> None:
        conversation = self._exchanges.conversation(message.exchange_id)
        if conversation is not None:
            conversation.delay_passed(message.backend)

    def fan_out_deadline_s(self, exchange: Exchange, backend: str) -> float:
        now_s = self.monotonic_s()
        return min(exchange.deadline_s, now_s + self._late_backends.patience_s(backend, now_s))

    def note_punctuality(self, backend: str, *, was_late: bool) -> None:
        if was_late:
            self._late_backends.was_late(backend, self.monotonic_s())
        else:
            self._late_backends.has_answered(backend)

    def use_session(self, state: SessionState) -> SessionState:
        return self._port.sessions.use(state, self.monotonic_s())

    def is_session_ended(self, state: SessionState) -> bool:
        return self._port.sessions.is_ended(state.key)

    def renew_session(self, state: SessionState, upstream: UpstreamSession) -> SessionState:
        renewed = self._port.sessions.replace_upstream(state.key, upstream) or state
        self._tell_streams(renewed)
        return renewed

    def refresh_session(self, state: SessionState) -> SessionState:
        newest = self._port.sessions.refresh(state)
        self._tell_streams(newest)
        return newest

    def _tell_streams(self, session: SessionState) -> None:
        """Those of a session look whether they are where it is now."""
        for stream in self._exchanges.of_session(session.key):
            stream.session_renewed(session)

    def _refresh_streams(self) -> None:
        """Look whether another cell has opened sessions again whose streams are here: a few at a time, in turn."""
        if self._port.settings.gateway.cell_count == 1:
            return
        for session in self._exchanges.next_sessions(_REFRESHED_AT_ONCE):
            self.refresh_session(session)

    def note_facts(self, state: SessionState, backend: str, method: str, params: bytes) -> SessionState:
        newest = self.refresh_session(state)
        return self._port.sessions.replace_facts(state.key, newest.facts.after(backend, method, params)) or newest

    def end_session(self, state: SessionState) -> None:
        """Refuse it here at once, and in the other cells as soon as the event reaches them."""
        self._port.sessions.end(state.key)
        ended = PublishEvent(topic=_SESSION_ENDED, payload={"session": state.key})
        self.send(self._gateway["event-bus"], ended)

    def issue_session(self, state: SessionState) -> str:
        state = msgspec.structs.replace(state, issued_ms=self._port.now_ms())
        self._end_at_servers(self._port.sessions.open(state, self.monotonic_s()))
        return self._port.session_ids.issue(state)

    def _end_at_servers(self, sessions: Sequence[SessionState]) -> None:
        """Of sessions that have expired or made room their servers know nothing: tell them, and the other cells."""
        for state in sessions:
            exchange = Exchange(
                exchange_id=self._port.next_exchange_id(),
                transport="streamable_http",
                revision=state.revision,
                endpoint=state.endpoint,
                kind=ExchangeKind.TERMINATE,
                session=state,
                hash_keys={"session": state.key},
                deadline_s=self.monotonic_s() + FAN_OUT_S,
            )
            self._port.open(exchange, _NobodyWaits())

    def remember_list(self, backend: str, method: str, revision: str, pages: Sequence[bytes]) -> None:
        self._port.last_known_lists.remember((backend, method, revision), pages, self.monotonic_s())

    def last_known_list(self, backend: str, method: str, revision: str) -> tuple[tuple[bytes, ...], float] | None:
        return self._port.last_known_lists.recall((backend, method, revision), self.monotonic_s())

    def receiveMsg_EventPublished(self, message: EventPublished, sender: ActorAddress) -> None:
        if message.topic == _SESSION_ENDED:
            self._port.sessions.end(str(message.payload.get("session")))

    # ---- topics that clients follow, and what they publish

    def receiveMsg_EventsLogged(self, message: EventsLogged, sender: ActorAddress) -> None:
        self._port.topics.take(message.events, message.is_caught_up)

    def receiveMsg_ClientEventsWaiting(self, message: ClientEventsWaiting, sender: ActorAddress) -> None:
        if self._gateway:
            self._publish_waiting()

    def _publish_waiting(self) -> None:
        outgoing = self._port.topics.outgoing
        while outgoing:
            self.send(self._gateway["event-bus"], outgoing.popleft())

    # ---- questions and housekeeping

    def receiveMsg_ChildAsked(self, message: ChildAsked, sender: ActorAddress) -> None:
        target = self._gateway.get(message.child)
        if target is None:
            self._port.fail_question(message.question.request_id, f"{message.child} is not running")
        else:
            self.send(target, message.question)

    def _receive_stray_mail(self, message: object, sender: ActorAddress) -> None:
        """Whatever carries the request_id of a question is its answer."""
        if hasattr(message, "request_id"):
            self._port.answer_question(message)
        else:
            super()._receive_stray_mail(message, sender)

    def receiveTimer_sweep(self, _: Any) -> None:
        """End what has outlived its deadline: nobody else may be left to do it."""
        now_s = self.monotonic_s()
        for exchange, _ in list(self._exchanges.waiting.values()):
            if now_s > exchange.deadline_s + _GRACE_S and (late := self._exchanges.conversation(exchange.exchange_id)):
                late.expired()
            elif exchange.session is not None:  # a stream that stays open keeps its session alive
                self._port.sessions.use(exchange.session, now_s)
        self._refresh_streams()
        self._end_at_servers(self._port.sessions.sweep(now_s))
        for revision, count in self._port.sessions.count_by_revision().items():
            metrics.sessions.labels(revision).set(count)
        self.start_timer("sweep", _SWEEP_S)

    # ---- the end

    def on_exit(self) -> None:
        """End the calls of this incarnation: nobody takes their answers, and a server serves one stream per session."""
        if "connection-pool" in self._gateway:
            for call_id in self._exchanges.calls:
                self.send(self._gateway["connection-pool"], CancelCall(call_id))


@attrs.frozen
class _RetryDue:
    """An edge to itself: the delay of `retry_later` has passed."""

    exchange_id: int
    backend: str


class _NobodyWaits:
    """The sink of an exchange that no client has asked for."""

    def answer(self, status: int, body: bytes, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        """Nobody reads it."""

    def refuse(self, refused: Refused, backend: str) -> None:
        """Nobody reads it: the server is gone, or ends an idle session by itself."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """Never called: there is no stream to the end of a session."""

    def event(self, data: bytes, event_id: str | None) -> None:
        """Never called."""

    def end(self, backend: str, upstream_s: float) -> None:
        """Never called."""
