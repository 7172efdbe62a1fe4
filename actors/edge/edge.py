"""The actor that carries out what clients ask: each exchange becomes a conversation, its calls go to the router."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from thespian.actors import ActorAddress

from mcp_gateway.actors.conversations.conversation_choice import conversation_for
from mcp_gateway.actors.messages.calls import CallAnswered, CallEvent, CallFailed, CancelCall
from mcp_gateway.actors.messages.events import EventPublished, EventsLogged, FollowLog, Subscribe
from mcp_gateway.actors.messages.exchanges import (
    ChildAsked,
    ClientEventsWaiting,
    EventsFlushed,
    ExchangeClosed,
    ExchangeOpened,
    PermissionsChanged,
    StreamEnded,
)
from mcp_gateway.actors.messages.topology import GatewayWired, Topology
from mcp_gateway.actors.messages.transports import RegisterTransport, TransportRefused, TransportsChanged
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .edge_desk import SESSION_ENDED, EdgeDesk, RetryDue
from .loop_port import LoopPort

_SWEEP_S = 1.0
_REFRESHED_AT_ONCE = 50  # sessions with streams, each second: a read of the journal takes some ten microseconds
_GRACE_S = 2.0
"""After an exchange's own deadline: the upstream reports the timeout first; the sweep is for calls whose actor has died."""


class Edge(GatewayActor):
    """Carries out exchanges: each becomes a conversation, its calls go to the router, its answer to the client's sink.

    Receives  ExchangeOpened, ExchangeClosed, EventsFlushed, StreamEnded, PermissionsChanged, ChildAsked (handlers, cell),
              CallAnswered, CallEvent, CallFailed (upstreams, connection pool, router), GatewayWired, Topology (cell supervisor),
              EventPublished, EventsLogged (event bus), ClientEventsWaiting (topic feed)
    Sends     RegisterTransport (transport registry), Subscribe, FollowLog, PublishEvent (event bus), and through its desk
              RouteCall (router), CancelCall (connection pool), CreditGranted (upstreams)
    On crash  clients that waited for an answer read `upstream_failed`; streams of sessions are opened again; sessions live on in
              their sealed ids
    """

    def __init__(self) -> None:
        super().__init__()
        self._gateway: dict[str, ActorAddress] = {}
        self._incarnations: dict[str, int] = {}

    def on_wired(self) -> None:
        self._port: LoopPort = self.arguments
        self._exchanges = self._port.exchanges
        assert self.runtime is not None
        self._port.attach(self.runtime, self.myAddress)
        self._desk = EdgeDesk(self, self._port)
        self._take_over()
        self.start_timer("sweep", _SWEEP_S)

    def _take_over(self) -> None:
        """Answer for the exchanges of an incarnation that crashed: its calls are lost, and a tool must not run twice."""
        self._exchanges.start_over()
        for exchange, sink in self._exchanges.unserved():
            if exchange.kind is not RequestKind.STREAM:
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
        self._desk.wire(self._gateway)
        for strategy in self._port.downstream_transports:
            registration = RegisterTransport(request_id="edge", strategy=strategy)
            self.send(self._gateway["transport-registry"], registration)
        subscribe = Subscribe(pattern=SESSION_ENDED, subscriber_id=self.name, of_all_nodes=True)
        self.send(self._gateway["event-bus"], subscribe)
        self.send(self._gateway["event-bus"], FollowLog(self._port.topics.last_id))
        self._publish_waiting()
        if lost_pool:
            self._fail_open_calls("the connection pool was restarted while the request ran")
        for exchange, sink in self._exchanges.unserved():
            self._open(exchange, sink)

    def _fail_open_calls(self, text: str) -> None:
        for call_id in self._exchanges.calls:
            failed = CallFailed(call_id=call_id, why=Failure(Fate.ENDED, text))
            self.receiveMsg_CallFailed(failed, self.myAddress)

    def receiveMsg_TransportsChanged(self, message: TransportsChanged, sender: ActorAddress) -> None:
        self._port.enable_transports(message.names)

    def receiveMsg_TransportRefused(self, message: TransportRefused, sender: ActorAddress) -> None:
        self.log(logging.ERROR, f"a client transport was refused: {message.problem}")
        self._port.answer_question(message)

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        """What open streams are told of: other servers, not other limits for the same."""
        if self._desk.configure(message.backends):
            for conversation in self._exchanges.conversations():
                conversation.backends_changed()

    def receiveMsg_PermissionsChanged(self, message: PermissionsChanged, sender: ActorAddress) -> None:
        """A subscription to what its client may not have any more ends; what stays open is told of other lists."""
        for conversation in self._exchanges.conversations():
            if self._port.may_go_on(conversation.exchange):
                conversation.backends_changed()
            else:
                conversation.end()

    # ---- exchanges

    def receiveMsg_ExchangeOpened(self, message: ExchangeOpened, sender: ActorAddress) -> None:
        """Serve it, unless it has been closed since, or GatewayWired has opened it already or will."""
        exchange_id = message.exchange.exchange_id
        waits = self._exchanges.waiting.get(exchange_id)
        if waits is not None and self._gateway and self._exchanges.conversation(exchange_id) is None:
            self._open(*waits)

    def _open(self, exchange: Exchange, sink: AnswerSink) -> None:
        if exchange.session is not None:
            exchange = msgspec.structs.replace(exchange, session=self._desk.use_session(exchange.session))
        try:
            conversation = conversation_for(exchange, sink, self._desk)
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

    def receiveMsg_RetryDue(self, message: RetryDue, sender: ActorAddress) -> None:
        conversation = self._exchanges.conversation(message.exchange_id)
        if conversation is not None:
            conversation.delay_passed(message.cause)

    def receiveMsg_StreamEnded(self, message: StreamEnded, sender: ActorAddress) -> None:
        conversation = self._exchanges.conversation(message.exchange_id)
        if conversation is not None:
            conversation.end()

    # ---- outcomes of calls

    def receiveMsg_CallAnswered(self, message: CallAnswered, sender: ActorAddress) -> None:
        self._desk.note_answer(message.backend)
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

    # ---- sessions that other cells have ended

    def receiveMsg_EventPublished(self, message: EventPublished, sender: ActorAddress) -> None:
        if message.topic == SESSION_ENDED:
            self._port.sessions.end(str(message.payload.get("session")))

    # ---- topics that clients follow, and what they publish

    def receiveMsg_EventsLogged(self, message: EventsLogged, sender: ActorAddress) -> None:
        self._port.topics.take(message.events, message.is_caught_up, message.lost, message.last_id)

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
        if self._port.settings.gateway.cell_count > 1:  # another one may have opened sessions again whose streams are here
            for session in self._exchanges.next_sessions(_REFRESHED_AT_ONCE):
                self._desk.refresh_session(session)
        self._desk.sweep(now_s)
        self._port.say_farewell(self._port.sessions.sweep(now_s), now_s)
        self._port.tell_of_use(now_s)
        for revision, count in self._port.sessions.count_by_revision().items():
            metrics.sessions.labels(revision).set(count)
        self.start_timer("sweep", _SWEEP_S)

    # ---- the end

    def on_exit(self) -> None:
        """End the calls of this incarnation: nobody takes their answers, and a server serves one stream per session."""
        if "connection-pool" in self._gateway:
            for call_id in self._exchanges.calls:
                self.send(self._gateway["connection-pool"], CancelCall(call_id))
