"""Where client sockets and actors meet: what handlers ask of the edge, on the event loop, whichever edge actor is up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from thespian.actors import ActorAddress

from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.messages.between_cells import EndSession, SessionChanged, SessionsUsed
from mcp_gateway.actors.messages.exchanges import (
    ChildAsked,
    ClientEventsWaiting,
    EventsFlushed,
    ExchangeClosed,
    ExchangeOpened,
    PermissionsChanged,
    StreamEnded,
)
from mcp_gateway.actors.messages.lifecycle import Runtime
from mcp_gateway.actors.storage.session_journal import SessionJournal
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.exchanges.request_watch import RequestWatch, WatchedSink
from mcp_gateway.transports.policy.permissions import Permissions
from mcp_gateway.transports.policy.permitted_topics import PermittedTopics
from mcp_gateway.transports.policy.views import NO_VIEWS, Views
from mcp_gateway.transports.ports.authenticator import Authenticator
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.meant_exchange import as_meant
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.request_terms import RequestTerms
from mcp_gateway.transports.protocol.curation.search_tools import SearchedList
from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import TASK_METHODS
from mcp_gateway.transports.protocol.merging.task_names import named_tasks
from mcp_gateway.transports.protocol.sealed.call_state import resumed_replica
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionIds, SessionState
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, read_task_id
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern

from .known_clients import KnownClients
from .last_known_lists import LastKnownLists
from .late_backends import FAN_OUT_S
from .open_exchanges import OpenExchanges
from .session_keeper import SessionKeeper
from .topic_feed import CellTopicFeed

_TELL_CELLS_S: Final = 1.0
"""A cell that hangs is killed by its node; a client that ends its session need not wait for that."""


class LoopPort:
    """The edge's port on the event loop: outlives every actor, so that a restarted edge finds the clients that wait.

    permissions: what every exchange is held against when it is opened; None where everybody may do everything.
    views: parts of the merged server, for those who have asked for one.
    """

    def __init__(self, settings: Settings, session_ids: SessionIds, cells: Forwarding, seal: Seal) -> None:
        self.views = NO_VIEWS
        self.settings = settings
        self.searched_list = _searched_list(settings)
        self.terms = RequestTerms(settings)
        self.cells = cells
        self.cell_name = cells.cell_name
        self.session_ids = session_ids
        self._watch = RequestWatch(settings.logging, cells.cell_name)
        self.seal = seal
        streamable = settings.transports.streamable_http
        self.sessions = SessionKeeper(
            SessionJournal(settings.gateway.state_path, self.now_ms()),
            streamable.max_sessions,
            streamable.session_idle_timeout or float("inf"),
            is_alone=settings.gateway.cell_count == 1,
            largest_share=settings.gateway.max_share_per_address,
            node=cells.node,
        )
        self.known_clients = None if settings.auth is None else KnownClients(settings, self.ask)
        self.authenticator: Authenticator | None = self.known_clients
        self.last_known_lists = LastKnownLists()
        self.permissions: Permissions | None = None
        self.exchanges = OpenExchanges()
        self.topics = CellTopicFeed(
            settings.transports.http_sse.retention_events,
            lambda: self._post(ClientEventsWaiting()),
            ids_never_fall=settings.cluster is not None,
        )
        self.downstream_transports: list[Any] = []
        self.enabled_transports: frozenset[str] = frozenset()
        self.is_draining = False
        self._runtime: Runtime | None = None
        self._address: ActorAddress | None = None
        self._ids = itertools.count(1)
        self._questions: dict[str, asyncio.Future[Any]] = {}
        self._addresses: Mapping[str, ActorAddress] = {}
        self._telling = HeldTasks()
        cells.answer_cells(EndSession, lambda ended: self.sessions.end(ended.key))
        cells.take_from_cells(SessionsUsed, lambda told: self.sessions.note_use(told.used_ms))
        cells.answer_cells(SessionChanged, lambda changed: self.sessions.changed_elsewhere(changed.state))

    @property
    def waiting(self) -> Mapping[int, tuple[Exchange, AnswerSink]]:
        """As `OpenExchanges.waiting`."""
        return self.exchanges.waiting

    def take_settings(self, settings: Settings) -> None:
        """Other backends and routes run from now on; everything on the loop, and an edge that starts again, reads them here."""
        self.settings = settings
        self.searched_list = _searched_list(settings)
        self.terms.take(settings)
        if self.known_clients is not None:
            self.known_clients.take_settings(settings)

    def attach(self, runtime: Runtime, address: ActorAddress) -> None:
        """The edge actor is up: its address from now on."""
        self._runtime, self._address = runtime, address

    def wire(self, addresses: Mapping[str, ActorAddress]) -> None:
        """Where the other actors of this cell are from now on, by their short names."""
        self._addresses = addresses

    def enable_transports(self, names: frozenset[str]) -> None:
        """Clients may use these transports from now on, and no others."""
        self.enabled_transports = names

    def next_exchange_id(self) -> int:
        return next(self._ids)

    def recent_requests(self) -> list[dict[str, Any]]:
        """Those that have ended, the latest first; see `RecentRequests.shown`."""
        return self._watch.recent.shown()

    def last_failures(self) -> dict[str, dict[str, Any]]:
        """As `RecentRequests.failures`."""
        return self._watch.recent.failures()

    def open(self, exchange: Exchange, sink: AnswerSink) -> None:
        if self._runtime is None or self._address is None:
            sink.refuse(Refused("draining", "the gateway is starting"), "")
            return
        if self.searched_list is not None:
            try:
                exchange = as_meant(exchange, self.terms.hash_keys)
            except Refused as misunderstood:
                sink.refuse(misunderstood, "")
                return
        exchange, sink = self._watch.watch(exchange, sink)
        if exchange.endpoint:
            exchange = self.views.addressed(exchange)
        if (refused := self._refusal(exchange)) is not None:
            sink.refuse(refused, "")
            return
        self.exchanges.open(exchange, sink)
        self._runtime.post(self._address, ExchangeOpened(exchange))

    def _refusal(self, exchange: Exchange) -> Refused | None:
        try:
            if self.permissions is not None:
                self.permissions.check(exchange)
            if exchange.server or exchange.tools:
                self.views.check(exchange)
        except Refused as refused:
            return refused
        return None

    def close(self, exchange_id: int) -> None:
        if (waiting := self.waiting.get(exchange_id)) is not None:
            if isinstance(waiting[1], WatchedSink):
                waiting[1].gone()
            self._post(ExchangeClosed(exchange_id))

    def flushed(self, exchange_id: int, event_count: int) -> None:
        if exchange_id in self.waiting:
            self._post(EventsFlushed(exchange_id, event_count))

    def say_farewell(self, sessions: Iterable[SessionState], now_s: float) -> None:
        """Of sessions that have expired or made room their servers know nothing: tell them, and the other cells."""
        for state in sessions:
            exchange = Exchange(
                exchange_id=self.next_exchange_id(),
                transport="streamable_http",
                revision=state.revision,
                endpoint=state.endpoint,
                kind=RequestKind.TERMINATE,
                session=state,
                hash_keys={"session": state.key, **({PRINCIPAL: state.principal} if state.principal else {})},
                deadline_s=now_s + FAN_OUT_S,
            )
            self.open(exchange, _NobodyWaits())

    def tell_of_use(self, now_s: float) -> None:
        """Let other nodes know which of their sessions are in use here; call it every second or so."""
        for node, used_ms in self.sessions.take_used_elsewhere(now_s).items():
            self.cells.tell_node(node, SessionsUsed(used_ms))

    def read_session(self, session_id: str, principal: Principal | None) -> SessionState | None:
        sealed = self.session_ids.read(session_id)
        if sealed is None or sealed.principal != ("" if principal is None else principal.key):
            return None
        return self.sessions.find(sealed, time.monotonic())

    def read_task(self, shown: str) -> TaskId | None:
        """The task behind an id of ours."""
        return read_task_id(self.seal, shown)

    def pinned_to(self, message: Message | None) -> str:
        """The replica whose parked call this request goes on with, or whose task it is about, or "" where it names none.

        A known gap: of a subscription to tasks of several replicas, those of the first alone are heard of.
        """
        if not isinstance(message, Request):
            return ""
        if message.method in TASK_METHODS or message.method == "subscriptions/listen":
            tasks = (self.read_task(shown) for shown in named_tasks(message.method, message.params))
            return next((task.replica for task in tasks if task is not None), "")
        return resumed_replica(self.seal, message.params) if b'"requestState"' in message.params else ""

    def tell_cells(self, message: object, on_told: Callable[[], None]) -> bool:
        """Ask all other cells, and call back when each has answered, has ended, or has taken too long.

        True where there are none; then nobody is called back.
        """
        names = self.cells.other_cells
        if not names:
            return True

        async def tell(cell_name: str) -> None:
            with contextlib.suppress(LookupError, TimeoutError):
                await self.cells.ask_cell(cell_name, message, _TELL_CELLS_S)

        async def tell_all() -> None:
            await asyncio.gather(*(tell(name) for name in names))
            on_told()

        self._telling.start(tell_all())
        return False

    def ask(self, child: str, question: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions[question.request_id] = future
        future.add_done_callback(lambda _: self._questions.pop(question.request_id, None))
        self._post(ChildAsked(child, question))
        return future

    def answer_question(self, answer: Any) -> None:
        future = self._questions.get(answer.request_id)
        if future is not None and not future.done():
            future.set_result(answer)

    def tell(self, child: str, message: object) -> None:
        """Send to an actor of this cell by its short name.

        Raises: LookupError where it does not run.
        """
        target = self._address if child == "edge" else self._addresses.get(child)
        if target is None or self._runtime is None:
            raise LookupError(f"{child} is not running")
        self._runtime.post(target, message)

    def permit(self, permissions: Permissions | None, views: Views = NO_VIEWS) -> None:
        """Hold what is opened, heard and read from now on against these."""
        self.permissions, self.views = permissions, views
        self.topics.forget_reads()

    def review_streams(self) -> None:
        """Other policies hold: have what is open looked at by them."""
        self._post(PermissionsChanged())

    def may_go_on(self, exchange: Exchange) -> bool:
        """Whether a subscription would be opened now, too. A call that runs ends as it would, and no stream of a session is one:
        it is held against the policies event by event, see `may_hear`.
        """
        is_subscription = exchange.deadline_s == float("inf") and isinstance(exchange.message, Request)
        return not is_subscription or self._refusal(exchange) is None

    def may_hear(self, exchange: Exchange, backend: str, message: Message | None) -> bool:
        """Whether the client of a stream may be told of what a server says of its own accord."""
        if self.permissions is None or exchange.deadline_s != float("inf"):
            return True
        return self.permissions.may_hear(exchange.principal, backend, message)

    def permitted_topics(self, principal: Principal | None, pattern: TopicPattern) -> TopicPattern:
        if self.permissions is None:
            return pattern
        self.permissions.check_followed(principal, pattern.text)
        return PermittedTopics(pattern.text, principal, lambda: self.permissions)

    def check_published(self, principal: Principal | None, topic: str) -> None:
        if self.permissions is not None:
            self.permissions.check_published(principal, topic)

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None:
        self.topics.publish(topic, payload)

    def end_streams(self) -> None:
        """End what has no end of its own, for a drain: streams of sessions and subscriptions."""
        for exchange, _ in list(self.waiting.values()):
            if exchange.deadline_s == float("inf"):
                self._post(StreamEnded(exchange.exchange_id))

    @staticmethod
    def now_ms() -> int:
        """The time of day, in milliseconds since the epoch, as events carry it."""
        return int(time.time() * 1000)

    def fail_question(self, request_id: str, text: str) -> None:
        future = self._questions.get(request_id)
        if future is not None and not future.done():
            future.set_exception(LookupError(text))

    def _post(self, message: object) -> None:
        if self._runtime is not None and self._address is not None:
            self._runtime.post(self._address, message)


def _searched_list(settings: Settings) -> SearchedList | None:
    return SearchedList(settings.search.above, settings.search.pinned) if settings.search.above else None


class _NobodyWaits:
    """The sink of an exchange that no client has asked for."""

    def answer(self, status: int, body: Pieces, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        """Nobody reads it."""

    def refuse(self, refused: Refused, backend: str) -> None:
        """Nobody reads it: the server is gone, or ends an idle session by itself."""

    def begin(self, headers: Mapping[str, str]) -> None:
        """Never called: there is no stream to the end of a session."""

    def event(self, data: bytes, event_id: str | None) -> None:
        """Never called."""

    def end(self, backend: str, upstream_s: float) -> None:
        """Never called."""
