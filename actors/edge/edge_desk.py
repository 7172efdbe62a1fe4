"""What conversations do to the world: calls as mail to the gateway's chain, sessions and lists as the port keeps them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections.abc import Mapping, Sequence

import attrs
import msgspec
from msgspec import Raw
from thespian.actors import ActorAddress

from mcp_gateway.actors.conversations.desk import CallWish
from mcp_gateway.actors.conversations.retry_budget import RetryBudget
from mcp_gateway.actors.messages.between_cells import EndSession, SessionChanged
from mcp_gateway.actors.messages.calls import Call, CancelCall, CreditGranted, RouteCall
from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.curation.search_tools import SearchedList
from mcp_gateway.transports.protocol.curation.tool_index import ToolIndex
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message
from mcp_gateway.transports.protocol.merging.merged_server import PageStart
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.question_ids import QuestionId, read_question_id, sealed_question_id
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId
from mcp_gateway.transports.telemetry import metrics

from .held_pages import HeldPages, PagesKey
from .late_backends import FAN_OUT_S, LateBackends
from .loop_port import LoopPort

SESSION_ENDED = "mcp.session.ended"
_MOST_INDEXES = 8
"""Lists of tools that can be searched without being read anew: one for each group of clients that sees the same."""


@attrs.frozen
class RetryDue:
    """The edge to itself: the delay of `EdgeDesk.retry_later` has passed."""

    exchange_id: int
    cause: str


class EdgeDesk:
    """Implements `conversations.desk.Desk` for one incarnation of the edge actor, in whose name it sends.

    Conversations act after `wire` only.
    """

    def __init__(self, edge: GatewayActor, port: LoopPort) -> None:
        self.server_info = {"name": "mcp-gateway", "version": VERSION}
        assert edge.runtime is not None
        self._runtime = edge.runtime
        self._address: ActorAddress = edge.myAddress
        self._send = edge.send
        self._now_s = edge.monotonic_s
        self._port = port
        self._exchanges = port.exchanges
        self._sessions = port.sessions
        self._addresses: Mapping[str, ActorAddress] = {}
        self._late_backends = LateBackends()
        self._indexes: dict[bytes, ToolIndex] = {}  # the one longest unused first
        self._held_pages = HeldPages()
        self._log = edge.log
        self._retry_budgets: dict[str, RetryBudget] = {}
        self._flaws: set[tuple[str, str, str]] = set()  # that were told: they last as long as the server is what it is
        # Ids of an earlier incarnation must not meet ours: the upstreams may still answer its calls.
        self._call_ids = itertools.count(edge.incarnation * 1_000_000_000 + 1)
        self._take(port.settings.backends)

    def wire(self, addresses: Mapping[str, ActorAddress]) -> None:
        """Where the actors are that carry out calls, by their short names."""
        self._addresses = addresses

    def configure(self, backends: Sequence[BackendSettings]) -> bool:
        """These are the backends from now on; whether any is another server than before, or gone, or new, or clients are shown
        another part of them.
        """
        before, shown_before = self._servers, self._shown
        self._take(backends)
        others = {name for name in before.keys() | self._servers.keys() if before.get(name) != self._servers.get(name)}
        self._port.last_known_lists.forget(others)
        self._held_pages.forget_all()
        self._flaws = {flaw for flaw in self._flaws if flaw[0] not in others}
        return bool(others) or self._shown != shown_before

    def _take(self, backends: Sequence[BackendSettings]) -> None:
        self._shown = self._port.settings.servers, self._port.settings.search
        self._late_backends.keep_only({backend.name for backend in backends})
        self._servers = {
            each.name: (
                *(each.prefix, each.replicas, each.command, each.openapi, each.base_url, each.grpc, each.builtin),
                *(each.is_per_user, each.tools),
            )
            for each in backends
        }
        self._merged = tuple(Naming(backend.name, backend.prefix) for backend in backends)
        self._merged_by_name = {naming.backend: naming for naming in self._merged}
        self._alone = {backend.name: (Naming(backend.name, ""),) for backend in backends}
        self._per_user = frozenset(backend.name for backend in backends if backend.is_per_user)
        self._timeouts_s = {backend.name: backend.request_timeout for backend in backends}
        self._hedges_after_s = {backend.name: backend.hedge_after for backend in backends if backend.hedge_after}
        known, self._retry_budgets = self._retry_budgets, {}
        for backend in backends:
            budget = known.get(backend.name)
            if budget is None or budget.share != backend.retry_budget:
                budget = RetryBudget(backend.retry_budget, self._now_s())
            self._retry_budgets[backend.name] = budget

    # ---- lists of tools that are too long to be shown

    @property
    def searched_list(self) -> SearchedList | None:
        return self._port.searched_list

    @property
    def view_number(self) -> int:
        return self._port.cells.view_number

    def tool_index(self, tools: Sequence[Mapping[str, Raw]]) -> ToolIndex:
        key = hashlib.sha256(msgspec.json.encode(tools)).digest()
        index = self._indexes.pop(key, None)
        if index is None:
            index = ToolIndex(tools)
            if len(self._indexes) >= _MOST_INDEXES:
                del self._indexes[next(iter(self._indexes))]
        self._indexes[key] = index
        return index

    # ---- backends and the time they have

    def namings(self, exchange: Exchange) -> tuple[Naming, ...]:
        if exchange.endpoint:
            return self._alone.get(exchange.endpoint, ())
        permissions, views = self._port.permissions, self._port.views
        reached = self._merged if permissions is None else permissions.within_reach(exchange.principal, self._merged)
        return views.within_reach(exchange, reached) if exchange.server else reached

    def instructions(self, exchange: Exchange) -> str:
        return self._port.views.instructions.get(exchange.server, "")

    def merged_naming(self, backend: str) -> Naming | None:
        return self._merged_by_name.get(backend)

    def fan_out_deadline_s(self, exchange: Exchange, backend: str) -> float:
        now_s = self._now_s()
        return min(exchange.deadline_s, now_s + self._late_backends.patience_s(backend, now_s))

    def note_punctuality(self, backend: str, *, was_late: bool) -> None:
        if was_late:
            self._late_backends.was_late(backend, self._now_s())
        else:
            self._late_backends.has_answered(backend)

    def note_flaw(self, backend: str, method: str, why: str) -> None:
        flaw = backend, method, re.split("[:;]", why, maxsplit=1)[0]
        if flaw not in self._flaws:
            self._flaws.add(flaw)
            self._log(logging.WARNING, f"backend {backend!r}, {method}: {why}; said once")

    # ---- calls

    def call(self, exchange: Exchange, wish: CallWish) -> int:
        call_id = next(self._call_ids)
        self._exchanges.begin_call(call_id, exchange.exchange_id)
        deadline_s = exchange.deadline_s if wish.deadline_s is None else wish.deadline_s
        limit_s = self._timeouts_s.get(wish.backend)
        if limit_s is not None and wish.kind is not RequestKind.STREAM:
            deadline_s = min(deadline_s, self._now_s() + limit_s)
        call = Call(
            call_id=call_id,
            edge=self._address,
            kind=wish.kind,
            transport=exchange.transport,
            revision=exchange.revision,
            target=exchange.target,
            backend=wish.backend,
            is_merged=not exchange.endpoint,
            message=wish.message,
            session=wish.session,
            opens_session=wish.opens_session,
            hash_keys=exchange.hash_keys,
            headers=exchange.headers,
            deadline_s=deadline_s,
            excluded=wish.excluded,
            hedges=wish.hedges,
            is_rewritten=exchange.is_rewritten,
            last_event_id=wish.last_event_id,
            pinned_to=self._port.pinned_to(wish.message) if wish.session is None else "",
        )
        self._send(self._addresses["router"], RouteCall(call))
        return call_id

    def cancel(self, call_id: int) -> None:
        if self._exchanges.end_call(call_id) is not None:
            self._send(self._addresses["connection-pool"], CancelCall(call_id))

    def note_answer(self, backend: str) -> None:
        """A server of this backend has answered: its retry budget grows."""
        budget = self._retry_budgets.get(backend)
        if budget is not None:
            budget.note_answer()

    def hedge_after_s(self, backend: str) -> float:
        return self._hedges_after_s.get(backend, 0.0)

    def may_retry(self, backend: str) -> bool:
        budget = self._retry_budgets.get(backend)
        may_retry = budget is not None and budget.take(self._now_s())
        metrics.retries_total.labels(metrics.known_backend(backend), "sent" if may_retry else "over_budget").inc()
        return may_retry

    def dismiss(self, exchange: Exchange, session: SessionState, backend: str) -> None:
        deadline_s = self._now_s() + FAN_OUT_S
        wish = CallWish(message=None, kind=RequestKind.TERMINATE, backend=backend, session=session, deadline_s=deadline_s)
        self._exchanges.end_call(self.call(exchange, wish))

    def grant(self, upstream: ActorAddress, call_id: int, event_count: int) -> None:
        self._send(upstream, CreditGranted(call_id, event_count))

    # ---- the exchange

    def retry_later(self, exchange: Exchange, delay_s: float, cause: str) -> None:
        self._runtime.post_later(delay_s, self._address, RetryDue(exchange.exchange_id, cause))

    def conclude(self, exchange: Exchange) -> None:
        self._exchanges.settle(exchange.exchange_id)

    # ---- sessions

    def use_session(self, state: SessionState) -> SessionState:
        return self._sessions.use(state, self._now_s())

    def is_session_ended(self, state: SessionState) -> bool:
        return self._sessions.is_ended(state.key)

    def refresh_session(self, state: SessionState) -> SessionState:
        newest = self._sessions.refresh(state)
        self._tell_streams(newest)
        return newest

    def renew_session(self, state: SessionState, upstream: UpstreamSession) -> SessionState:
        renewed = self._sessions.replace_upstream(state.key, upstream) or state
        self._tell_streams(renewed)
        return renewed

    def _tell_streams(self, session: SessionState) -> None:
        """Those of a session look whether they are where it is now."""
        for stream in self._exchanges.of_session(session.key):
            stream.session_renewed(session)

    def note_facts(self, state: SessionState, backend: str, method: str, params: bytes) -> SessionState:
        newest = self.refresh_session(state)
        told = msgspec.structs.replace(newest, facts=newest.facts.after(backend, method, params))
        kept = told.within(self._port.settings.gateway.max_session_bytes)
        return self._sessions.replace_facts(state.key, kept.facts) or newest

    def issue_session(self, state: SessionState) -> str:
        state = msgspec.structs.replace(state, issued_ms=self._port.now_ms(), node=self._port.cells.node)
        session_id = self._port.session_ids.issue(state)
        now_s = self._now_s()
        self._port.say_farewell(self._sessions.open(state, now_s), now_s)
        return session_id

    def tell_of_session(self, exchange: Exchange, state: SessionState, told: str) -> bool:
        return self._port.tell_cells(SessionChanged(state), lambda: self.retry_later(exchange, 0.0, told))

    def end_session(self, exchange: Exchange, state: SessionState, told: str) -> bool:
        """The event is for a cell that hangs now: it gets its mail when it goes on."""
        self._sessions.end(state.key)
        self._send(self._addresses["event-bus"], PublishEvent(topic=SESSION_ENDED, payload={"session": state.key}))
        return self._port.tell_cells(EndSession(state.key), lambda: self.retry_later(exchange, 0.0, told))

    # ---- tasks and lists

    def name_question(self, question: QuestionId) -> bytes:
        return sealed_question_id(self._port.seal, question)

    def read_question(self, shown: bytes) -> QuestionId | None:
        return read_question_id(self._port.seal, shown)

    def read_task(self, shown: str) -> TaskId | None:
        return self._port.read_task(shown)

    def may_hear(self, exchange: Exchange, backend: str, message: Message | None) -> bool:
        return self._port.may_hear(exchange, backend, message)

    def shown_list(self, exchange: Exchange, backend: str, method: str, result: bytes) -> bytes:
        permissions = self._port.permissions
        if permissions is not None:
            result = permissions.shown_list(exchange.principal, backend, method, result)
        return self._port.views.shown_list(exchange, backend, method, result) if exchange.server or exchange.tools else result

    def remember_list(self, backend: str, method: str, revision: str, pages: Sequence[bytes]) -> None:
        if backend not in self._per_user:  # what such a server lists it lists for one user, though no old revision says so
            self._port.last_known_lists.remember((backend, method, revision), pages, self._now_s())

    def hold_pages(self, exchange: Exchange, pages: Mapping[PageStart, bytes]) -> None:
        self._held_pages.hold(self._pages_key(exchange), pages, self._now_s())

    def held_page(self, exchange: Exchange, start: PageStart) -> bytes | None:
        return self._held_pages.find(self._pages_key(exchange), start, self._now_s())

    def _pages_key(self, exchange: Exchange) -> PagesKey:
        """Who somebody is today, and by which policies, decides as well what is shown in the session."""
        session_key = exchange.session.key if exchange.session is not None else ""
        reader = session_key, exchange.principal, self._port.permissions
        return (*reader, exchange.address, exchange.tools, exchange.method, exchange.revision)

    def sweep(self, now_s: float) -> None:
        """Let go of what nobody came for."""
        self._held_pages.sweep(now_s)

    def last_known_list(self, backend: str, method: str, revision: str) -> tuple[tuple[bytes, ...], float] | None:
        return self._port.last_known_lists.recall((backend, method, revision), self._now_s())
