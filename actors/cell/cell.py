"""A whole gateway in one process: Tornado and the in-process actors on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import os
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.edge.present_clients import MOST_ROWS, present_clients
from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.health.alert_sinks import AlertDispatcher
from mcp_gateway.actors.messages.cluster import ClusterDescribed, Ownership
from mcp_gateway.actors.messages.events import EventsLogged
from mcp_gateway.actors.messages.health import ReplicaProbed
from mcp_gateway.actors.messages.lifecycle import Wiring
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.pool.upstream import wires_closed
from mcp_gateway.actors.routing.route_table import configured_routes
from mcp_gateway.actors.runtime.in_process_system import InProcessSystem
from mcp_gateway.actors.runtime.system_key import load_or_create_key, load_secrets
from mcp_gateway.actors.runtime.thespian_hardening import key_in_use
from mcp_gateway.actors.storage.audit_file import AuditFile
from mcp_gateway.actors.storage.pin_file import PinFile
from mcp_gateway.actors.storage.stored_vault import StoredVault
from mcp_gateway.actors.storage.task_journal import TaskJournal
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.consent.consent_endpoint import CONSENT_PATHS, ConsentEndpoint
from mcp_gateway.transports.downstream.http.http_sse import HTTP_SSE_PATHS, HttpSseEndpoint, HttpSseTransport
from mcp_gateway.transports.downstream.http.streamable_http import (
    STREAMABLE_HTTP_PATHS,
    StreamableHttpEndpoint,
    StreamableHttpTransport,
)
from mcp_gateway.transports.downstream.http.topic_stream import TOPIC_STREAM_PATH, TopicStreamEndpoint
from mcp_gateway.transports.downstream.operators.start_page import START_PATH, StartPageEndpoint
from mcp_gateway.transports.downstream.phoenix.phoenix_socket import PHOENIX_PATH, PhoenixEndpoint
from mcp_gateway.transports.downstream.server.gate import Access
from mcp_gateway.transports.downstream.server.logout_endpoint import LOGOUT_PATH, LogoutEndpoint, LogoutRefused
from mcp_gateway.transports.downstream.server.metadata_endpoint import METADATA_PATHS, MetadataEndpoint
from mcp_gateway.transports.downstream.server.operator_cookies import OperatorCookies
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.downstream.server.tickets import TICKET_PATH, Tickets
from mcp_gateway.transports.downstream.websocket.websocket_endpoint import WEBSOCKET_PATH, WebSocketEndpoint, WebSocketTransport
from mcp_gateway.transports.downstream.websocket.websocket_upgrades import WebSockets
from mcp_gateway.transports.identity.denials import Denials
from mcp_gateway.transports.identity.rejection import CredentialRejected
from mcp_gateway.transports.ports.authenticator import Authenticator
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.strategies import UpstreamTransport
from mcp_gateway.transports.ports.subject_tokens import NotingAuthenticator, SubjectTokens
from mcp_gateway.transports.protocol.curation.curation import Curation
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.session import SessionIds
from mcp_gateway.transports.protocol.topics.topic_log import Event
from mcp_gateway.transports.telemetry import metrics, tracing
from mcp_gateway.transports.telemetry.tallies import write_tallies
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.parked_calls import ParkedCalls, ParkingLimits
from mcp_gateway.transports.upstream.bridge.task_ledger import TaskLedger, TaskLimits
from mcp_gateway.transports.upstream.credentials.backend_access import BackendAccess
from mcp_gateway.transports.upstream.credentials.memory_vault import MemoryVault
from mcp_gateway.transports.upstream.guard.guardrail import guard_of
from mcp_gateway.transports.upstream.pipes.process_guard import PROCESS_GUARD

from .audit_trail import AuditTrail
from .cell_drain import drained, wires_s
from .cell_permissions import permissions_of, views_of
from .cell_status import CellStatus
from .cell_wires import ways_to_servers
from .dashboard_state import DashboardState
from .gateway_supervisor import BESIDE_THE_CHAIN, GATEWAY_CHILDREN, CellParts, CellSupervisor
from .lookup_threads import LookupThreads
from .operator_actions import OperatorActions
from .operator_pages import add_operator_pages
from .quota_reports import quota_reports

if TYPE_CHECKING:
    from mcp_gateway.transports.downstream.grpc.grpc_listener import GrpcListener

_logger = logging.getLogger(__name__)
_LOOKUPS = 32  # names looked up at once; the default is a few more than there are processors


class Hosting(Enum):
    """Whose process a cell runs in, and who takes connections for it.

    OWN:     its own: it sets the process up for itself.
    GUEST:   another program's, whose collector, threads and signals are left alone; it listens on a port of its own.
    MOUNTED: the same, and that program's server hands requests over, see `Cell.server`.
    """

    OWN = "own"
    GUEST = "guest"
    MOUNTED = "mounted"


class Cell:
    """Implements `node_link.CellContent`. Everything runs on the loop that calls `start`.

    authenticator: who knows the clients, where a test says so.
    """

    def __init__(
        self,
        settings: Settings,
        cell_index: int,
        cell_name: str,
        link: NodeLink,
        authenticator: Authenticator | None = None,
        hosting: Hosting = Hosting.OWN,
    ) -> None:
        self._hosting = hosting
        self._authenticator = authenticator
        self._settings = settings
        self._index = cell_index
        self._name = cell_name
        self._link = link
        self._alerts: AlertDispatcher | None = None
        self._audit = _audit_trail(settings, cell_name)
        self._shown_circuits: set[tuple[str, str]] = set()
        self._ends_by_s = float("inf")  # on the monotonic clock, once it drains
        self._cells = Forwarding(link, cell_name, settings.gateway.cell_count)
        self._subjects = SubjectTokens()
        self._denied: tuple[str, ...] = ()
        self._parked = ParkedCalls(ParkingLimits())
        self._curations: dict[str, Curation] = {}

    async def start(self) -> None:
        seal = Seal(*_secrets(self._settings))
        self._access = self._make_access(seal)
        self._forget_denied(self._settings)
        self._make_edge(seal)
        self._pins = PinFile(self._settings.gateway.state_path)
        self._add_endpoints(seal)
        if self._hosting is Hosting.OWN:
            asyncio.get_running_loop().set_default_executor(LookupThreads(_LOOKUPS))
        self._tasks = TaskJournal(self._settings.gateway.state_path)
        self._quotas = quota_reports(self._server.limiter.quota, self._settings.gateway.state_path, self._cells.node)
        self._start_actors(self._wires(seal))
        try:
            if self._hosting is Hosting.MOUNTED:
                self._server.serve()
            else:
                self._server.listen()
            if self._grpc is not None:
                await self._grpc.listen()
        except OSError:
            await self.stop()
            raise
        if self._index == 0:  # one cell of a node tells whoever must know
            self._alerts = AlertDispatcher(self._settings.alerts, self._port.topics, self._cells.node)
        tracing.start(self._settings.telemetry, self._name)
        if self._hosting is Hosting.OWN:
            _settle_process()

    @property
    def server(self) -> GatewayServer:
        """What takes requests; another server may hand them over, see `mounted_server`."""
        return self._server

    def _make_access(self, seal: Seal) -> BackendAccess:
        """What servers are shown. Without a state directory it is kept as long as the cell lives."""
        gateway, state_path = self._settings.gateway, self._settings.gateway.state_path
        return BackendAccess(
            MemoryVault if state_path is None else functools.partial(StoredVault, state_path),
            seal,
            self._subjects,
            (gateway.public_url or self._settings.url).rstrip("/"),
            tells_users_apart=self._settings.auth is not None,
        )

    def _wires(self, seal: Seal) -> tuple[UpstreamTransport, ...]:
        """The ways to servers, each of which any client may take."""
        self._hosted_tasks = TaskLedger(TaskLimits())
        site = BridgeSite(
            cell_name=self._name,
            seal=seal,
            elsewhere=self._cells,
            others=lambda: self._cells.other_cells,
            speakers=self._cells.speakers_beside,
            tasks=self._hosted_tasks,
            records=self._tasks,
            pins=self._pins,
            curations=self._curations,
            publish=self._port.publish,
            guard_of=guard_of,
            parked=self._parked,
        )
        return ways_to_servers(site, self._access, self._settings.gateway.idle_process_timeout)

    def _make_edge(self, seal: Seal) -> None:
        """Where exchanges of clients enter, and the server that will listen for them."""
        settings = self._settings
        session_ids = SessionIds(seal, settings.gateway.max_session_bytes)
        self._port = LoopPort(self._settings, session_ids, self._cells, seal)
        if self._authenticator is not None:
            self._port.authenticator = self._authenticator
        self._permit(settings)
        self._port.downstream_transports += [StreamableHttpTransport(), HttpSseTransport(), WebSocketTransport()]
        known = self._port.authenticator
        share = settings.gateway.max_share_per_address
        self._tickets = None if known is None else Tickets(seal, self._cells, known, share)
        noting = None if known is None else NotingAuthenticator(known, self._subjects)
        self._note_log_in = None if self._audit is None else self._audit.note_log_in
        self._cookies = OperatorCookies(seal, (settings.gateway.public_url or settings.url).rstrip("/"))
        self._server = GatewayServer(self._settings, self._port.publish, noting, self._tickets, self._note_log_in, self._cookies)
        self._grpc = self._make_grpc() if settings.grpc.port else None
        self._cells.take_from_cells(ReplicaProbed, self._take_probe)
        self._status = CellStatus(self._name, self._port, self._server)

    def _make_grpc(self) -> GrpcListener:
        """What it needs is an extra, and not loaded by who does without."""
        from mcp_gateway.transports.downstream.grpc.grpc_listener import GrpcListener, GrpcTransport

        self._port.downstream_transports.append(GrpcTransport())
        return GrpcListener(self._settings, self._server, self._port)

    def _permit(self, settings: Settings) -> None:
        note = None if self._audit is None else self._audit.note
        self._port.permit(permissions_of(settings, self._port.read_task, note), views_of(settings, self._port.read_task))

    def _take_probe(self, probed: ReplicaProbed) -> None:
        """What the cell that probes has found: `/health` says the same in every cell."""
        with contextlib.suppress(LookupError):  # it is being started again, and hears of the next one
            self._port.tell("health-monitor", probed)

    def _add_endpoints(self, seal: Seal) -> None:
        """What is served under which path."""
        settings, server, port = self._settings, self._server, self._port
        self._sockets = WebSockets(settings, server, port)
        sse = HttpSseEndpoint(settings, server, port)
        for path in HTTP_SSE_PATHS:
            server.add_endpoint(path, sse, takes_ticket=not path.endswith("/messages"))
        mcp = StreamableHttpEndpoint(server, port)
        for path in STREAMABLE_HTTP_PATHS:
            server.add_endpoint(path, mcp)
        server.add_endpoint(WEBSOCKET_PATH, WebSocketEndpoint(server, port, self._sockets), takes_ticket=True)
        server.add_endpoint(TOPIC_STREAM_PATH, TopicStreamEndpoint(settings, server, port), takes_ticket=True)
        server.add_endpoint(PHOENIX_PATH, PhoenixEndpoint(settings, server, port, self._sockets), takes_ticket=True)
        state = DashboardState(port, self._link, self._who_is_here, self._curations, self._pins)
        actions = OperatorActions(port, self._link, self._pins, None if self._audit is None else self._audit.note_action)
        add_operator_pages(server, port, seal, self._cookies, state.take, actions, self._note_log_in)
        if server.gate is not None and server.gate.auth.issuers:  # else there is nowhere to log in
            metadata = MetadataEndpoint(server, server.gate)
            for path in METADATA_PATHS:
                server.add_endpoint(path, metadata, access=Access.EVERYBODY)
            if any(issuer.logout_audience for issuer in server.gate.auth.issuers):
                logout = LogoutEndpoint(self._log_out, settings.gateway.max_share_per_address)
                server.add_endpoint(LOGOUT_PATH, logout, access=Access.EVERYBODY)
        if self._tickets is not None:
            server.add_endpoint(TICKET_PATH, self._tickets)
        consent = ConsentEndpoint(self._access.consents, self._access.consents.base_url)
        for path in CONSENT_PATHS:
            server.add_endpoint(path, consent, access=Access.ANYBODY, is_page=True)
        start_page = StartPageEndpoint(server.base_url, self._servers_for, self._settings.grpc.port)
        server.add_endpoint(START_PATH, start_page, is_page=True)

    async def _log_out(self, token: str) -> None:
        """Raises: LogoutRefused, Refused."""
        assert self._port.known_clients is not None
        try:
            log_out = await self._port.known_clients.read_log_out(token)
            answer = await self._link.change("revoke", {"log_out": log_out})
        except CredentialRejected as error:
            raise LogoutRefused(str(error)) from None
        except TimeoutError:
            raise Refused("upstream_timeout", "not every cell has answered") from None
        if "refused" in answer:
            raise LogoutRefused("; ".join(answer["refused"]))
        if "error" in answer:
            raise Refused("upstream_failed", "it could not be kept: see the log")

    def _servers_for(self, principal: Principal | None) -> list[tuple[str, str]]:
        """(name, title) of those of which the client may use something."""
        permissions, settings = self._port.permissions, self._port.settings
        entered = [each for each in settings.backends if permissions is None or permissions.may_enter(principal, each.name)]
        names = [each.name for each in entered]
        virtual = (each.name for each in settings.servers if self._port.views.has_part_of(each.name, names))
        return [*((each.name, each.title) for each in entered), *((name, "") for name in virtual)]

    def _start_actors(self, wires: tuple[UpstreamTransport, ...]) -> None:
        """The supervision tree; when this returns, all of it runs."""
        metrics.start_from_zero(f"{self._name}/{name}" for name in (*BESIDE_THE_CHAIN, *GATEWAY_CHILDREN))
        self._show_backends()
        self._system = InProcessSystem()
        arguments = CellParts(
            settings=self._settings,
            link=self._link,
            port=self._port,
            upstream_transports=wires,
            probes_replicas=self._index == 0,
        )
        wiring = Wiring(
            name=f"{self._name}/cell-supervisor", incarnation=1, addresses={}, runtime=self._system, arguments=arguments
        )
        self._root = self._system.create(CellSupervisor, wiring)

    def _show_backends(self) -> None:
        backends = self._port.settings.backends
        circuits = {
            (route.pattern, replica)
            for route in configured_routes(backends, self._port.settings.routes)
            for backend in backends
            if backend.name == route.backend
            for replica in backend.replica_ids
        }
        metrics.show_backends([backend.name for backend in backends], circuits - self._shown_circuits)
        self._shown_circuits = circuits

    def apply_settings(self, settings: Settings) -> None:
        has_other_policies = settings.policies != self._port.settings.policies
        self._port.take_settings(settings)
        self._server.take_auth(settings.auth)
        self._access.keep(settings.backends)
        self._forget_denied(settings)
        self._permit(settings)
        self._show_backends()
        if has_other_policies:
            self._port.review_streams()
        # When this returns, every actor has taken it in.
        self._system.post(self._root, Topology(backends=settings.backends, routes=settings.routes, left_out=settings.left_out))

    def _forget_denied(self, settings: Settings) -> None:
        """Users who are not let in any more leave no credentials behind."""
        denied = () if settings.auth is None else (*settings.auth.denied_subjects, *settings.revocations.subjects)
        if denied != self._denied and any(backend.auth == "user" for backend in settings.backends):
            self._denied = denied
            self._access.forget_users(Denials(denied).deny)

    async def drain(self, deadline_s: float, *, others_serve: bool = False, node_ends: bool = False) -> None:
        self._ends_by_s = time.monotonic() + deadline_s
        how = {"others_serve": others_serve, "node_ends": node_ends}
        await drained(self._port, self._server, self._cells, self._held_count, deadline_s, **how)

    def _held_count(self) -> int:
        """Calls that run as tasks, or wait for their clients."""
        return self._hosted_tasks.running_count + self._parked.unfinished_count

    async def stop(self) -> None:
        self._cells.close()
        if self._alerts is not None:
            await self._alerts.close()
        if self._grpc is not None:
            await self._grpc.close()
        await self._sockets.close()
        self._system.stop(self._root)
        await asyncio.gather(self._server.close(), wires_closed(wires_s(self._ends_by_s - time.monotonic())))
        self._tasks.close()
        if self._quotas is not None:
            await self._quotas.close()
        self._pins.close()
        self._port.sessions.close()
        if self._port.known_clients is not None:
            self._port.known_clients.close()
        if self._audit is not None:
            await self._audit.close()
        write_tallies()
        if self._hosting is Hosting.OWN or not PROCESS_GUARD.is_used:  # another gateway in the same program may have servers
            PROCESS_GUARD.stop()
        if tracing.tracer is not None:
            await asyncio.to_thread(tracing.stop)

    def deliver_events(self, events: list[Event]) -> None:
        link = self._link
        self._system.post(self._root, EventsLogged(tuple(events), link.is_caught_up, link.lost, link.last_event_id))

    def cells_changed(self, running: Mapping[str, object]) -> None:
        self._cells.cells_changed(running)

    def nodes_changed(self, cell_counts: Mapping[str, int], *, is_member: bool) -> None:
        self._cells.nodes_changed(cell_counts, is_member=is_member)

    def hold_limits(self, default: float, parts: Mapping[str, float]) -> None:
        self._server.limiter.hold(default, parts)

    def limits_asked(self) -> dict[str, float]:
        return self._server.limiter.take_asked()

    def owners_told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        self._cells.holdings.told(owners, lease_until_s)

    def cluster_described(self, status: Mapping[str, Any]) -> None:
        with contextlib.suppress(LookupError):  # it is being started again, and hears of it in a second
            self._port.tell("health-monitor", ClusterDescribed(status=dict(status)))

    def deliver_forwarded(self, from_cell: str, message: object) -> None:
        self._cells.deliver(from_cell, message)

    def forward_failed(self, cell_name: str, messages: tuple[object, ...], *, is_unsent: bool = False) -> None:
        self._cells.failed(cell_name, messages, is_unsent=is_unsent)

    # ---- status and commands

    async def status(self) -> dict[str, Any]:
        return await self._status.take()

    async def command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "sessions":
            return self._who_is_here()
        return await self._status.command(name, arguments)

    def _who_is_here(self) -> dict[str, Any]:
        """{"sessions": how many, "clients": the rows of `present_clients`, "connections", "parked": {address: calls}}."""
        port = self._port
        waiting = [exchange for exchange, _ in port.waiting.values()]
        return {
            "ok": True,
            "sessions": len(port.sessions),
            "clients": present_clients(port.sessions.newest(MOST_ROWS, time.monotonic()), waiting, port.now_ms())[:MOST_ROWS],
            "connections": self._server.connection_counts(),
            "parked": self._parked.by_client,
        }


def _settle_process() -> None:
    """What has been made so far lives as long as the cell: the collector need not look at it again and again. Requests leave few
    cycles behind, so it may also look less often than for a script.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def make_cell(settings: Settings, cell_index: int, cell_name: str, link: NodeLink) -> Cell:
    """The factory that the launcher names; see `node_link.CellFactory`."""
    return Cell(settings, cell_index, cell_name, link)


def _secrets(settings: Settings) -> tuple[bytes, ...]:
    """What the ids of sessions are sealed with, the newest first: the same in every cell of the cluster or the node.

    After a restart as well, where there is a state directory or a cluster.
    """
    if settings.cluster is not None:
        return load_secrets(Path(settings.cluster.key_file).expanduser())
    state_path = settings.gateway.state_path
    if state_path is not None:
        return (load_or_create_key(state_path),)
    return (key_in_use() or os.urandom(32),)


def _audit_trail(settings: Settings, cell_name: str) -> AuditTrail | None:
    state_path, audit = settings.gateway.state_path, settings.audit
    if state_path is None or not audit.retention_days:
        return None
    file = AuditFile(state_path, audit.retention_days * 86_400, audit.max_bytes, _logger.warning)
    return AuditTrail(file, cell_name)
