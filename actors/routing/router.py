"""Finds the backend and the replica for each call: route patterns, a hash ring per backend, a circuit breaker per replica."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any

from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.calls import (
    Call,
    CallFailed,
    CallFaulted,
    CallLeft,
    CallRanLong,
    CallSucceeded,
    CallTimedOut,
    LeaseCall,
    RouteCall,
    TrialEnded,
)
from mcp_gateway.actors.messages.events import EventPublished, PublishEvent, Subscribe
from mcp_gateway.actors.messages.health import (
    ComponentProbed,
    ProbeComponent,
    ProbeReplicas,
    ReplicaEjected,
    ReplicaProbed,
    ReplicaRestored,
)
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.backend_settings import BackendSettings, RouteSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.telemetry import metrics

from .bounded_load import Loads
from .circuit_breaker import CircuitBreaker, CircuitState, Transition
from .hash_ring import HashRing
from .replica_choice import Backend, Chosen, CircuitKey, Ejection, choose, has_other, may_open, new_breaker, no_route
from .route_table import Route, RouteTable, configured_routes

_LOOK = "look"
_LOOK_AGAIN_S = 0.25
"""Between an answer and the next question to a server that fails: one good answer or two, within a second, end that it is out."""
_LONGEST_LOOK_S = 5.0

_LEAST_JITTER = 0.5
"""Cells and routes that gave up a replica together try it again at times of their own. Source: Brooker, "Exponential Backoff
And Jitter": half of the backoff is kept, half is drawn by lot ("equal jitter")."""

_CIRCUIT_TOPICS = {
    CircuitState.OPEN: "mcp.circuit.opened",
    CircuitState.HALF_OPEN: "mcp.circuit.half_open",
    CircuitState.CLOSED: "mcp.circuit.closed",
}


def _jitter() -> float:
    return random.uniform(_LEAST_JITTER, 1.0)


class Router(GatewayActor):
    """Sends each call to the replica that its hash key prefers, unless that one is ejected, draining or its circuit open.

    A call that fails makes it look for itself: what one client alone has seen of a replica keeps nobody else from it. Whoever is
    out it asks all the time, and takes in again by the first good answer after a bad one, or the second.

    Receives  Topology (cell), RouteCall (edge), CallFaulted, CallTimedOut, CallRanLong, CallSucceeded, ReplicaProbed (upstreams),
              TrialEnded, CallLeft (connection pool), ReplicaEjected, ReplicaRestored (health monitor), EventPublished (event bus:
              ejections seen by another cell)
    Sends     LeaseCall, ProbeReplicas (connection pool), CallFailed (edge), PublishEvent, Subscribe (event bus)
    On crash  circuits are closed again and ejections forgotten; the next failures and probes find out anew
    """

    def __init__(self) -> None:
        super().__init__()
        self._backends: dict[str, Backend] = {}
        self._table = RouteTable(())
        self._breakers: dict[CircuitKey, CircuitBreaker] = {}
        self._loads = Loads()
        self._looks_s: dict[ReplicaId, float] = {}  # when each may be asked again how it does

    def on_wired(self) -> None:
        settings: Settings = self.arguments
        self._look_timeout_s = min(settings.gateway.health_check_interval, _LONGEST_LOOK_S)
        self._arrange(settings, settings.backends, settings.routes)
        self.start_timer("look", _LOOK_AGAIN_S)
        subscribe = Subscribe(pattern="mcp.replica.*", subscriber_id=self.name)
        self.send(self.addresses["event-bus"], subscribe)

    # ---- topology

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._arrange(self.arguments, message.backends, message.routes)

    def _arrange(self, settings: Settings, backends: Sequence[BackendSettings], routes: Sequence[RouteSettings]) -> None:
        """Take in a new set of backends; rings of those that stay only change by the replicas that came or went."""
        kept: dict[str, Backend] = {}
        circuits = self._circuits_shown()  # before the rings change
        for backend in backends:
            known = self._backends.get(backend.name) or Backend(
                HashRing(settings.gateway.hash_ring_size), Route(pattern=f"backend/{backend.name}", backend=backend.name)
            )
            members = set(backend.replica_ids)
            for member in set(known.ring.members) - members:
                known.ring.remove(member)
                known.ejected.pop(member, None)
                known.returned_at_s.pop(member, None)
            for member in backend.replica_ids:
                if member not in known.ring.members:
                    known.ring.add(member)
                    if backend.name in self._backends:
                        known.returned_at_s[member] = self.monotonic_s()
            known.is_draining = backend.draining
            known.draining_replicas = frozenset(backend.draining_replicas)
            kept[backend.name] = known
            metrics.ring_members.labels(backend.name).set(len(members))
        replicas = {ReplicaId(name, member) for name, backend in kept.items() for member in backend.ring.members}
        gone = self._backends.keys() - kept.keys()
        before = {pattern: self._route_of(pattern) for pattern, _ in self._breakers}
        self._backends = kept
        self._table = RouteTable(configured_routes(backends, routes))
        for pattern, replica in list(self._breakers):
            if replica not in replicas or self._route_of(pattern) != before[pattern]:
                del self._breakers[pattern, replica]  # what it has counted says nothing of another route
                metrics.circuit_state.labels(pattern, replica.address).set(0)
        self._loads.forget_all_but(replicas)
        self._looks_s = {replica: at_s for replica, at_s in self._looks_s.items() if replica in replicas}
        self._forget_gauges(gone, circuits - self._circuits_shown())

    def _circuits_shown(self) -> set[tuple[str, str]]:
        """(route, address) of every circuit that the metrics show."""
        shown = {(pattern, replica.address) for pattern, replica in self._breakers}
        for route in self._table.routes:
            if (backend := self._backends.get(route.backend)) is not None:
                shown |= {(route.pattern, member) for member in backend.ring.members}
        return shown

    @staticmethod
    def _forget_gauges(backends: Iterable[str], circuits: Iterable[tuple[str, str]]) -> None:
        """What runs no more must not look open, or like a member, for ever."""
        for name in backends:
            metrics.forget(metrics.ring_members, name)
        for circuit in circuits:
            metrics.forget(metrics.circuit_state, *circuit)

    # ---- calls

    def receiveMsg_RouteCall(self, message: RouteCall, sender: ActorAddress) -> None:
        call = message.call
        route = self._route_for(call)
        backend = None if route is None else self._backends.get(route.backend)
        if route is None or backend is None:
            self.send(call.edge, no_route(call, self._backends.keys()))
            return
        now_s = self.monotonic_s()
        choice = choose(call, route, backend, self._breakers, now_s, self._loads)
        if isinstance(choice, CallFailed):
            self.send(call.edge, choice)
            return
        if choice.is_panic:
            metrics.panics_total.labels(route.pattern).inc()
        if choice.is_trial:
            self._take_trial(route.pattern, choice, call, now_s)
        is_counted = route.hash_balance_factor > 0 and call.kind is RequestKind.REQUEST
        if is_counted:
            self._loads.begin(choice.replica)
        leased = LeaseCall(
            call=call,
            replica=choice.replica,
            route=route.pattern,
            is_trial=choice.is_trial,
            slow_after_s=route.slow_call_duration_s or math.inf,
            is_counted=is_counted,
            router=self.myAddress,
        )
        self.send(self.addresses["connection-pool"], leased)

    def _take_trial(self, route: str, choice: Chosen, call: Call, now_s: float) -> None:
        breaker = self._breakers[route, choice.replica]
        before = breaker.state
        breaker.allows(now_s, call.call_id, client=call.client, is_last_resort=choice.is_last_resort)
        if before is not breaker.state:
            self._announce(route, choice.replica, Transition(before, breaker.state), breaker)

    def _route_for(self, call: Call) -> Route | None:
        """The route whose pattern matches; a call that is bound to a backend falls back on that backend's own."""
        route = self._table.match(call.target, call.transport)
        if not call.backend or (route is not None and route.backend == call.backend):
            return route
        if route is None and call.is_merged and self._table.is_routed(call.target):
            return None  # its routes exclude this transport
        backend = self._backends.get(call.backend)
        return None if backend is None else backend.own_route

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, RouteCall):
            call, text = message.call, "the router was restarted"
            failed = CallFailed(call_id=call.call_id, why=Failure(Fate.TURNED_AWAY, text), backend=call.backend)
            self.send(call.edge, failed)

    # ---- outcomes

    def receiveMsg_CallFaulted(self, message: CallFaulted, sender: ActorAddress) -> None:
        circuit = (message.route, message.replica)
        if (breaker := self._breaker(circuit)) is not None:
            now_s = self.monotonic_s()
            room = {"may_open": self._may_open(circuit), "has_other": self._has_other(circuit, now_s)}
            transition = breaker.record_failure(now_s, message.client, message.success_count, **room)
            self._take_note(circuit, breaker, transition)
            self._look_at(message.replica)

    def receiveMsg_CallRanLong(self, message: CallRanLong, sender: ActorAddress) -> None:
        circuit = (message.route, message.replica)
        if (breaker := self._breaker(circuit)) is not None:
            now_s = self.monotonic_s()
            room = {"may_open": self._may_open(circuit), "has_other": self._has_other(circuit, now_s)}
            transition = breaker.record_slow_call(now_s, message.client, message.success_count, **room)
            self._take_note(circuit, breaker, transition)

    def receiveMsg_CallTimedOut(self, message: CallTimedOut, sender: ActorAddress) -> None:
        circuit = (message.route, message.replica)
        if (breaker := self._breaker(circuit)) is not None:
            transition = breaker.record_timeout(self.monotonic_s(), may_open=self._may_open(circuit))
            self._take_note(circuit, breaker, transition)
            self._look_at(message.replica)

    def receiveMsg_CallSucceeded(self, message: CallSucceeded, sender: ActorAddress) -> None:
        breaker = self._breakers.get((message.route, message.replica))
        if breaker is None:
            return
        transition = breaker.record_success(self.monotonic_s())
        if transition is not None:
            self._announce(message.route, message.replica, transition, breaker)

    def receiveMsg_TrialEnded(self, message: TrialEnded, sender: ActorAddress) -> None:
        breaker = self._breakers.get((message.route, message.replica))
        if breaker is not None:
            breaker.abandon_trial(message.call_id)

    def receiveMsg_CallLeft(self, message: CallLeft, sender: ActorAddress) -> None:
        self._loads.end(message.replica)

    def _breaker(self, circuit: CircuitKey) -> CircuitBreaker | None:
        """Made at the first failure; None where the route is gone."""
        breaker = self._breakers.get(circuit)
        if breaker is None and (route := self._route_of(circuit[0])) is not None:
            breaker = self._breakers[circuit] = new_breaker(route, _jitter)
        return breaker

    def _may_open(self, circuit: CircuitKey) -> bool:
        route = self._route_of(circuit[0])
        backend = None if route is None else self._backends.get(route.backend)
        return route is not None and backend is not None and may_open(circuit, route, backend, self._breakers)

    def _has_other(self, circuit: CircuitKey, now_s: float) -> bool:
        route = self._route_of(circuit[0])
        backend = None if route is None else self._backends.get(route.backend)
        return route is not None and backend is not None and has_other(circuit, route, backend, self._breakers, now_s)

    def _take_note(self, circuit: CircuitKey, breaker: CircuitBreaker, transition: Transition | None) -> None:
        if transition is not None:
            self._announce(*circuit, transition, breaker)
        elif breaker.state is CircuitState.CLOSED and breaker.has_evidence:
            metrics.circuits_kept_closed_total.labels(circuit[0]).inc()

    # ---- looks: a second witness of failures, and of their end

    def _look_at(self, replica: ReplicaId) -> None:
        """Ask the server itself, one question at a time."""
        now_s = self.monotonic_s()
        if now_s < self._looks_s.get(replica, now_s):
            return
        self._looks_s[replica] = now_s + self._look_timeout_s + _LOOK_AGAIN_S  # no answer would be an answer that was lost
        look = ProbeReplicas(request_id=_LOOK, timeout_s=self._look_timeout_s, asker=self.myAddress, replica=replica)
        self.send(self.addresses["connection-pool"], look)

    def receiveMsg_ReplicaProbed(self, message: ReplicaProbed, sender: ActorAddress) -> None:
        now_s, replica = self.monotonic_s(), message.replica
        if replica in self._looks_s:
            self._looks_s[replica] = now_s + _LOOK_AGAIN_S
        if message.is_starting:  # neither a success nor a failure
            return
        if not message.problem:
            self._take_in(replica)
        for key, breaker in self._breakers.items():
            if key[1] == replica:
                transition = breaker.record_probe(now_s, is_well=not message.problem, may_open=self._may_open(key))
                self._take_note(key, breaker, transition)

    def receiveTimer_look(self, _: Any) -> None:
        """Whoever is kept out may be well again."""
        out = {replica for (_, replica), breaker in self._breakers.items() if breaker.state is not CircuitState.CLOSED}
        out |= {ReplicaId(name, address) for name, backend in self._backends.items() for address in backend.ejected}
        for replica in out:
            self._look_at(replica)
        self.start_timer("look", _LOOK_AGAIN_S)

    def _route_of(self, pattern: str) -> Route | None:
        if pattern.startswith("backend/"):
            backend = self._backends.get(pattern.removeprefix("backend/"))
            return None if backend is None else backend.own_route
        return next((route for route in self._table.routes if route.pattern == pattern), None)

    def _announce(self, route: str, replica: ReplicaId, transition: Transition, breaker: CircuitBreaker) -> None:
        if transition.new is CircuitState.CLOSED and (backend := self._backends.get(replica.backend)) is not None:
            backend.returned_at_s[replica.address] = self.monotonic_s()
        self.log(logging.WARNING, f"circuit {transition.old.name} -> {transition.new.name}", route=route, replica=replica.address)
        metrics.circuit_state.labels(route, replica.address).set(breaker.gauge)
        self._publish(_CIRCUIT_TOPICS[transition.new], {"route": route, "replica": replica.address})

    # ---- ejection

    def receiveMsg_ReplicaEjected(self, message: ReplicaEjected, sender: ActorAddress) -> None:
        name, address = message.replica
        backend = self._backends.get(name)
        if backend is not None and address in backend.ring.members:
            wait_s = message.retry_after_s
            backend.ejected[address] = Ejection(message.reason, None if wait_s is None else self.monotonic_s() + wait_s)

    def receiveMsg_ReplicaRestored(self, message: ReplicaRestored, sender: ActorAddress) -> None:
        self._take_in(message.replica)

    def _take_in(self, replica: ReplicaId) -> None:
        """A replica that was ejected answers its probes again: its circuits need not wait for their own time to try it.

        Source: Envoy manual, outlier detection, `successful_active_health_check_uneject_host` (on by default).
        """
        backend = self._backends.get(replica.backend)
        if backend is None or backend.ejected.pop(replica.address, None) is None:
            return
        backend.returned_at_s[replica.address] = self.monotonic_s()
        for (pattern, known), breaker in list(self._breakers.items()):
            route = self._route_of(pattern)
            if known == replica and route is not None:
                closed = self._breakers[pattern, replica] = new_breaker(route, _jitter)
                if breaker.state is not closed.state:
                    self._announce(pattern, replica, Transition(breaker.state, closed.state), closed)

    def receiveMsg_EventPublished(self, message: EventPublished, sender: ActorAddress) -> None:
        replica = ReplicaId(str(message.payload.get("backend")), str(message.payload.get("replica")))
        if message.topic == "mcp.replica.ejected":
            ejected = ReplicaEjected(replica, str(message.payload.get("reason")), message.payload.get("retry_after_s"))
            self.receiveMsg_ReplicaEjected(ejected, sender)
        elif message.topic == "mcp.replica.restored":
            self.receiveMsg_ReplicaRestored(ReplicaRestored(replica), sender)

    # ---- questions

    def receiveMsg_ProbeComponent(self, message: ProbeComponent, sender: ActorAddress) -> None:
        problem = "" if self._backends else "no backend is configured"
        self.send(sender, ComponentProbed(message.request_id, "router", problem))

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        status = {
            name: {
                member: {
                    "health": "unhealthy" if member in backend.ejected else "healthy",
                    "circuit": self._worst_circuit(ReplicaId(name, member)),
                    "ring_share": round(backend.ring.share(member), 4),
                }
                for member in backend.ring.members
            }
            for name, backend in self._backends.items()
        }
        self.send(sender, StatusReported(message.request_id, status))

    def _worst_circuit(self, replica: ReplicaId) -> str:
        states = [breaker for (_, member), breaker in self._breakers.items() if member == replica]
        return max(states, key=lambda breaker: breaker.gauge).state.name.lower() if states else "closed"

    def _publish(self, topic: str, payload: dict[str, object]) -> None:
        self.send(self.addresses["event-bus"], PublishEvent(topic=topic, payload=payload))
