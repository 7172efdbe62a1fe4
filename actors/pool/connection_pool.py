"""Connections to servers: how many calls each replica may carry at once, who waits, and the upstream actors that carry them."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import msgspec
from thespian.actors import ActorAddress

from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.messages.calls import (
    CallFailed,
    CallLeft,
    CancelCall,
    LeaseCall,
    LeaseReturned,
    RunCall,
    TrialEnded,
    TryAgain,
    UpstreamEnding,
)
from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent, ProbeReplicas, ReplicaProbed
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.messages.transports import ResolveScheme, SchemeResolved
from mcp_gateway.actors.supervision.restart_plan import ChildSpec, RestartIntensity, Strategy
from mcp_gateway.actors.supervision.supervisor import Supervisor
from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.settings import GatewaySettings, Settings
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget, UpstreamTransport, scheme_of
from mcp_gateway.transports.ports.upstream_port import UpstreamConversation
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.telemetry import metrics

from .concurrency_limit import ConcurrencyLimit
from .lease_ledger import Grant, LeaseLedger
from .upstream import Upstream, UpstreamArguments

_GAUGES_S = 1.0
_NEVER_S = float("inf")
_WAITING_PER_CONNECTION = 100
"""Calls that may wait for each connection: far more than can be served within any checkout timeout."""


@attrs.define
class _Replica:
    """One server address: its ledger, the name of its upstream actor, and the calls that wait.

    limit: found by how long its calls take, where its backend asks for that.
    granted: calls of `waiting` that hold a lease already and run as soon as the upstream has started again.
    answered: calls that an upstream which is ending has answered.
    """

    backend: BackendSettings
    index: int
    ledger: LeaseLedger
    child: str
    limit: ConcurrencyLimit | None = None
    waiting: dict[int, LeaseCall] = attrs.field(factory=dict)
    granted: list[int] = attrs.field(factory=list)
    answered: frozenset[int] = frozenset()
    is_told_exhausted: bool = False


@attrs.frozen(kw_only=True)
class ConnectionPoolArguments:
    """cells: the other cells of the node, which hold some of the connections. seal: for ids of tasks."""

    settings: Settings
    cells: Forwarding = attrs.field(repr=False)
    seal: Seal = attrs.field(repr=False)


FENCING_TOKEN = "MCP_GATEWAY_FENCING_TOKEN"
"""In the environment of a process that the cluster has once: higher than that of every process before. What it writes to can
refuse an older one, which a machine that was stopped may still run for a moment when it goes on."""


class ConnectionPool(Supervisor):
    """Grants each call a connection of its replica, or lets it wait for at most the checkout timeout, or refuses it.

    Requests alone need a lease. Cancellations, answers to a server's questions and the ends of sessions pass them by: a call that
    has asked its client something, or is to end, holds its lease until they arrive.

    Receives  LeaseCall (router), LeaseReturned, UpstreamEnding (upstreams), CancelCall (edge), Topology (cell),
              ProbeReplicas (health monitor, router), SchemeResolved (transport registry)
    Sends     RunCall, CancelCall, ProbeReplicas, TryAgain (upstreams), CallFailed (edge), TrialEnded, CallLeft (router),
              ResolveScheme (transport registry), PublishEvent (event bus)
    On crash  its upstreams end with it and answer for the calls they run; the edge answers for the calls that waited here; the
              router, which is started again after it, forgets the trials
    """

    strategy: ClassVar[Strategy] = Strategy.ONE_FOR_ONE
    intensity: ClassVar[RestartIntensity] = RestartIntensity(max_restarts=20, period_s=10.0)

    def __init__(self) -> None:
        super().__init__()
        self._replicas: dict[ReplicaId, _Replica] = {}
        self._leased: dict[int, LeaseCall] = {}  # by call id: what waits or runs
        self._expire_due_s = _NEVER_S  # when the timer for waiters fires

    def child_specs(self) -> Sequence[ChildSpec]:
        return ()  # they come one by one, as the registry tells who speaks to each scheme

    def on_wired(self) -> None:
        super().on_wired()
        arguments: ConnectionPoolArguments = self.arguments
        self._cells, self._seal = arguments.cells, arguments.seal
        self._gateway = arguments.settings.gateway
        self._arrange(arguments.settings.backends)
        self.start_timer("gauges", _GAUGES_S)

    # ---- topology

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._arrange(message.backends)
        for replica in self._replicas.values():
            if (address := self.child_address(replica.child)) is not None:
                self.send(address, TryAgain())

    def _arrange(self, backends: Sequence[BackendSettings]) -> None:
        max_overflow = self._share(self._gateway.max_overflow)
        wanted = {
            ReplicaId(backend.name, address): (backend, index)
            for backend in backends
            for index, address in enumerate(backend.replica_ids)
        }
        for gone in [replica for replica in self._replicas if replica not in wanted]:
            self._drop(gone)
        for replica_id, (backend, index) in wanted.items():
            known = self._replicas.get(replica_id)
            if known is not None and _connection(known.backend, known.index) == _connection(backend, index):
                known.backend, known.index = backend, index
                self._grant(known, known.ledger.resize(self._share(backend.pool_size), max_overflow, self.monotonic_s()))
                self._limit(known)
                continue
            if known is not None:
                self._drop(replica_id)
            pool_size = self._share(backend.pool_size)
            ledger = LeaseLedger(pool_size, max_overflow, (pool_size + max_overflow) * _WAITING_PER_CONNECTION)
            self._replicas[replica_id] = _Replica(backend, index, ledger, self._free_child_name(backend.name, index))
            self._limit(self._replicas[replica_id])
        for scheme in {scheme_of(replica_id.address) for replica_id in self._replicas}:
            self.send(self.addresses["transport-registry"], ResolveScheme(f"scheme:{scheme}", scheme))

    def _limit(self, replica: _Replica) -> None:
        """As its backend asks for it now."""
        ceiling = self._share(replica.backend.pool_size) + self._share(self._gateway.max_overflow)
        if not replica.backend.adaptive_concurrency:
            replica.limit = None
        elif replica.limit is None:
            replica.limit = ConcurrencyLimit(ceiling)
        else:
            replica.limit.change_ceiling(ceiling)
        limit = None if replica.limit is None else replica.limit.limit
        self._grant(replica, replica.ledger.limit_to(limit, self.monotonic_s()))

    def _share(self, connection_count: int) -> int:
        """This cell's part of what is promised for the node."""
        return -(-connection_count // self._gateway.cell_count)

    def _free_child_name(self, backend: str, index: int) -> str:
        """`files#0`, or the next number where an upstream of that name runs, or is about to end."""
        taken = {*self.supervision.names, *(replica.child for replica in self._replicas.values())}
        return next(name for number in itertools.count(index) if (name := f"{backend}#{number}") not in taken)

    def receiveMsg_SchemeResolved(self, message: SchemeResolved, sender: ActorAddress) -> None:
        strategy: UpstreamTransport | None = message.strategy
        if strategy is None:
            self.log(logging.ERROR, f"no transport speaks to {message.scheme!r}: its backends cannot be reached")
            return
        for replica_id, known in self._replicas.items():
            if scheme_of(replica_id.address) != message.scheme or known.child in self.supervision.names:
                continue
            connect = functools.partial(_connect, strategy, known.backend, known.index, self._gateway)
            arguments = UpstreamArguments(
                replica=replica_id,
                naming=Naming(replica_id.backend, known.backend.prefix),
                connect=connect,
                connect_owned=connect if known.backend.one_per_cluster and self._cells.node else None,
                cells=self._cells,
                seal=self._seal,
                is_one_of_several=len(known.backend.replica_ids) > 1,
            )
            self.start_child(ChildSpec(name=known.child, actor_class=Upstream, arguments=arguments))

    def _drop(self, replica_id: ReplicaId) -> None:
        """Forget a replica. Its upstream answers for the calls it runs; those that wait may go elsewhere."""
        replica = self._replicas.pop(replica_id)
        for leased in replica.waiting.values():
            self._refuse(leased, "no_backend", f"replica {replica_id.address} was removed")
        for leased in [leased for leased in self._leased.values() if leased.replica == replica_id]:
            self._is_over(leased)
        self.stop_child(replica.child)
        for state in ("leased", "idle", "waiting"):
            metrics.forget(metrics.pool_connections, *replica_id, state)
        if replica.limit is not None:
            metrics.forget(metrics.concurrency_limit, *replica_id)

    # ---- leases

    def receiveMsg_LeaseCall(self, message: LeaseCall, sender: ActorAddress) -> None:
        replica = self._replicas.get(message.replica)
        if replica is None or self.child_address(replica.child) is None:
            self._refuse(message, "upstream_failed", "this replica is not connected")
            return
        call = message.call
        self._leased[call.call_id] = message
        if call.kind is RequestKind.STREAM:  # stays open as long as its client does: it must not use up the pool
            self._run(replica, message)
            self._end_trial(message)  # nor must other calls wait for a verdict that comes with its end
            return
        now_s = self.monotonic_s()
        due_s = now_s + replica.backend.request_timeout
        if due_s < call.deadline_s:  # the edge did not know to which backend its target leads
            call = msgspec.structs.replace(call, deadline_s=due_s)
            message = msgspec.structs.replace(message, call=call)
        if call.kind is not RequestKind.REQUEST:  # it may be what the calls wait for that hold all leases
            self._run(replica, message)
            return
        if call.deadline_s <= now_s:
            self._out_of_time(message)
            return
        give_up_s = min(call.deadline_s, now_s + self._gateway.checkout_timeout)
        if replica.limit is not None and not replica.ledger.has_room:
            wait_s = replica.limit.expected_wait_s(replica.ledger.counts.waiting)
            if now_s + wait_s > give_up_s:  # those that wait already come first: it would be refused when its time is over
                self._exhausted(replica, message, "more calls wait than can be served in time", wait_s)
                return
        grant = replica.ledger.request(call.call_id, give_up_s)
        if grant is Grant.GRANTED:
            self._run(replica, message)
        elif grant is Grant.QUEUED:
            replica.waiting[call.call_id] = message
            if give_up_s < self._expire_due_s:
                self._expire_due_s = give_up_s
                self.start_timer("expire", max(0.0, give_up_s - now_s))
        else:
            self._exhausted(replica, message, "too many calls wait for a connection")

    def _run(self, replica: _Replica, leased: LeaseCall) -> None:
        address = self.child_address(replica.child)
        if address is None:
            replica.waiting[leased.call.call_id] = leased
            replica.granted.append(leased.call.call_id)
        else:
            self.send(address, RunCall(leased))

    def receiveMsg_LeaseReturned(self, message: LeaseReturned, sender: ActorAddress) -> None:
        replica = self._replicas.get(message.replica)
        if replica is None:
            return
        leased = self._leased.get(message.call_id)
        is_request = leased is not None and leased.call.kind is RequestKind.REQUEST
        if replica.limit is not None and message.served_s is not None and is_request:
            limit = replica.limit.note(message.served_s, replica.ledger.counts.leased)
            self._grant(replica, replica.ledger.limit_to(limit, self.monotonic_s()))
        self._release(replica, message.call_id)

    def receiveMsg_CancelCall(self, message: CancelCall, sender: ActorAddress) -> None:
        leased = self._leased.get(message.call_id)
        if leased is None:
            return
        replica = self._replicas[leased.replica]
        if message.call_id not in replica.waiting:
            address = self.child_address(replica.child)
            if address is not None:
                self.send(address, message)
        self._release(replica, message.call_id)

    def _release(self, replica: _Replica, call_id: int) -> None:
        leased = self._leased.get(call_id)
        if leased is not None:
            self._is_over(leased)
        replica.waiting.pop(call_id, None)
        self._grant(replica, replica.ledger.cancel(call_id, self.monotonic_s()))

    def _is_over(self, leased: LeaseCall) -> None:
        self._leased.pop(leased.call.call_id, None)
        self._end_trial(leased)
        if leased.is_counted:
            self.send(leased.router, CallLeft(leased.replica))

    def _end_trial(self, leased: LeaseCall) -> None:
        """Where the call is a trial that has brought no verdict, the router need not wait for one."""
        if leased.is_trial:
            self.send(leased.router, TrialEnded(leased.route, leased.replica, leased.call.call_id))

    def _grant(self, replica: _Replica, call_ids: Sequence[int]) -> None:
        for call_id in call_ids:
            self._run(replica, replica.waiting.pop(call_id))

    def receiveTimer_expire(self, _: Any) -> None:
        now_s = self.monotonic_s()
        for replica in self._replicas.values():
            for call_id in replica.ledger.expire(now_s):
                leased = replica.waiting.pop(call_id)
                if leased.call.deadline_s <= now_s:
                    self._out_of_time(leased)
                    continue
                self._exhausted(replica, leased, "no connection became free in time")
        self._expire_due_s = self._next_deadline_s()
        if self._expire_due_s != _NEVER_S:
            self.start_timer("expire", max(0.001, self._expire_due_s - now_s))

    def _next_deadline_s(self) -> float:
        deadlines = (replica.ledger.next_deadline_s for replica in self._replicas.values())
        return min((deadline for deadline in deadlines if deadline is not None), default=_NEVER_S)

    def _out_of_time(self, leased: LeaseCall) -> None:
        """What can't end in its time is not begun, here or at another replica."""
        self._is_over(leased)
        backend, _ = leased.replica
        why = Failure(Fate.TURNED_AWAY, f"backend {backend!r}: its time was over before it was sent", reason="upstream_timeout")
        self.send(leased.call.edge, CallFailed(call_id=leased.call.call_id, why=why, backend=backend))

    def _exhausted(self, replica: _Replica, leased: LeaseCall, text: str, retry_after_s: float | None = None) -> None:
        backend, address = leased.replica
        metrics.pool_exhausted_total.labels(backend).inc()
        if not replica.is_told_exhausted:  # once per second at most: see receiveTimer_gauges
            replica.is_told_exhausted = True
            payload = {"backend": backend, "replica": address}
            self.send(self.addresses["event-bus"], PublishEvent(topic="mcp.pool.exhausted", payload=payload))
        self._refuse(leased, "pool_exhausted", f"backend {backend!r}: {text}", retry_after_s)

    def _refuse(self, leased: LeaseCall, reason: str, text: str, retry_after_s: float | None = None) -> None:
        self._is_over(leased)
        why = Failure(Fate.TURNED_AWAY, text, reason=reason, retry_after_s=retry_after_s)
        backend, address = leased.replica
        failed = CallFailed(call_id=leased.call.call_id, why=why, backend=backend, replica=address)
        self.send(leased.call.edge, failed)

    # ---- upstreams that end

    def receiveMsg_UpstreamEnding(self, message: UpstreamEnding, sender: ActorAddress) -> None:
        replica = self._replicas.get(message.replica)
        if replica is not None:
            replica.answered = message.call_ids

    def on_child_gone(self, spec: ChildSpec, pid: int | None) -> None:
        """Answer the calls that came to it too late. All its leases go to those who wait, who run once it has started again."""
        for replica_id, replica in self._replicas.items():
            if replica.child == spec.name:
                for leased in [leased for leased in self._leased.values() if leased.replica == replica_id]:
                    call_id = leased.call.call_id
                    if call_id in replica.waiting:
                        continue
                    if call_id not in replica.answered:
                        self._refuse(leased, "upstream_failed", "the connection was restarted before the request was sent")
                    self._release(replica, call_id)
                replica.answered = frozenset()

    def on_child_event(self, kind: str, name: str, reason_text: str) -> None:
        for replica in self._replicas.values():
            if replica.child == name and kind == "restarted":
                granted, replica.granted = replica.granted, []
                self._grant(replica, [call_id for call_id in granted if call_id in replica.waiting])

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, LeaseCall):
            self._refuse(message, "upstream_failed", "the connection pool was restarted")

    # ---- questions

    def receiveMsg_ProbeComponent(self, message: ProbeComponent, sender: ActorAddress) -> None:
        busy = [replica_id.backend for replica_id, replica in self._replicas.items() if replica.ledger.counts.waiting]
        problem = f"calls wait for a connection to {', '.join(sorted(set(busy)))}" if busy else ""
        self.send(sender, ComponentProbed(message.request_id, "connection-pool", problem))

    def receiveMsg_ProbeReplicas(self, message: ProbeReplicas, sender: ActorAddress) -> None:
        for replica_id, replica in self._replicas.items():
            if message.replica not in (None, replica_id):
                continue
            address = self.child_address(replica.child)
            if address is not None:
                self.send(address, message)
            else:
                probed = ReplicaProbed(request_id=message.request_id, replica=replica_id, problem="not connected", elapsed_s=0.0)
                self.send(sender, probed)

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        status: dict[str, dict[str, dict[str, int]]] = {}
        for replica_id, replica in self._replicas.items():
            counts = replica.ledger.counts
            pool = {"idle": counts.idle, "leased": counts.leased, "waiting": counts.waiting, "overflow": counts.overflow}
            status.setdefault(replica_id.backend, {})[replica_id.address] = pool
        self.send(sender, StatusReported(message.request_id, status))

    def receiveTimer_gauges(self, _: Any) -> None:
        for replica_id, replica in self._replicas.items():
            counts = replica.ledger.counts
            metrics.pool_connections.labels(*replica_id, "leased").set(counts.leased)
            metrics.pool_connections.labels(*replica_id, "idle").set(counts.idle)
            metrics.pool_connections.labels(*replica_id, "waiting").set(counts.waiting)
            if replica.limit is not None:
                metrics.concurrency_limit.labels(*replica_id).set(replica.limit.limit)
            replica.is_told_exhausted = False
        self.start_timer("gauges", _GAUGES_S)


def _connection(backend: BackendSettings, index: int) -> tuple[object, ...]:
    """What a connection to a replica is made from: it is made anew where this changes, and only there."""
    url = backend.replicas[index] if backend.replicas else ""
    program = (backend.command, backend.env, backend.cwd, backend.builtin, backend.one_per_cluster)
    described = (backend.openapi, backend.base_url, backend.allow_private, backend.grpc)
    return (url, backend.prefix, backend.protocol, backend.headers, backend.tools, *program, *described)


def _connect(
    strategy: UpstreamTransport, backend: BackendSettings, index: int, gateway: GatewaySettings, token: int | None = None
) -> UpstreamConversation:
    """token: under which this node owns the server; told to its process, for what it writes to elsewhere."""
    if token is not None:
        backend = attrs.evolve(backend, env={**backend.env, FENCING_TOKEN: str(token)})
    return strategy.connect(ReplicaTarget(backend, index, gateway.max_message_bytes, gateway.max_overflow))
