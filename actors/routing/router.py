"""Finds the backend and the replica for each call: route patterns, a hash ring per backend, a circuit breaker per replica."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import attrs
from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.calls import (
    Call,
    CallFailed,
    CallFaulted,
    CallKind,
    CallSucceeded,
    LeaseCall,
    RouteCall,
    TrialEnded,
)
from mcp_gateway.actors.messages.events import EventPublished, PublishEvent, Subscribe
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent, ReplicaEjected, ReplicaRestored
from mcp_gateway.actors.messages.status import StatusReported, StatusRequested
from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.settings import BackendSettings, RouteSettings, Settings
from mcp_gateway.transports.protocol.mcp.revisions import is_known_method
from mcp_gateway.transports.telemetry import metrics

from .circuit_breaker import CircuitBreaker, CircuitState, Transition
from .hash_ring import HashRing
from .route_table import Route, RouteTable, configured_routes

_CIRCUIT_TOPICS = {
    CircuitState.OPEN: "mcp.circuit.opened",
    CircuitState.HALF_OPEN: "mcp.circuit.half_open",
    CircuitState.CLOSED: "mcp.circuit.closed",
}


@attrs.define
class _Backend:
    """What the router keeps of one backend. own_route serves calls that name the backend instead of a target."""

    ring: HashRing
    own_route: Route
    ejected: dict[str, str] = attrs.field(factory=dict)
    is_draining: bool = False


class Router(GatewayActor):
    """Sends each call to the replica that its hash key prefers, unless that one is ejected, draining or its circuit open.

    Receives  Topology (cell), RouteCall (edge), CallFaulted, CallSucceeded (upstreams), TrialEnded (connection pool),
              ReplicaEjected, ReplicaRestored (health monitor), EventPublished (event bus: ejections seen by another cell)
    Sends     LeaseCall (connection pool), CallFailed (edge), PublishEvent, Subscribe (event bus)
    On crash  circuits are closed again and ejections forgotten; the next failures and probes find out anew
    """

    def __init__(self) -> None:
        super().__init__()
        self._backends: dict[str, _Backend] = {}
        self._table = RouteTable(())
        self._breakers: dict[tuple[str, str], CircuitBreaker] = {}

    def on_wired(self) -> None:
        settings: Settings = self.arguments
        self._arrange(settings, settings.backends, settings.routes)
        subscribe = Subscribe(pattern="mcp.replica.*", subscriber_id=self.name)
        self.send(self.addresses["event-bus"], subscribe)

    # ---- topology

    def receiveMsg_Topology(self, message: Topology, sender: ActorAddress) -> None:
        self._arrange(self.arguments, message.backends, message.routes)

    def _arrange(self, settings: Settings, backends: Sequence[BackendSettings], routes: Sequence[RouteSettings]) -> None:
        """Take in a new set of backends; rings of those that stay only change by the replicas that came or went."""
        kept: dict[str, _Backend] = {}
        circuits = self._circuits_shown()  # before the rings change
        for backend in backends:
            known = self._backends.get(backend.name) or _Backend(
                HashRing(settings.gateway.hash_ring_size), Route(pattern=f"backend/{backend.name}", backend=backend.name)
            )
            members = set(backend.replica_ids)
            for member in set(known.ring.members) - members:
                known.ring.remove(member)
                known.ejected.pop(member, None)
            for member in backend.replica_ids:
                if member not in known.ring.members:
                    known.ring.add(member)
            known.is_draining = backend.draining
            kept[backend.name] = known
            metrics.ring_members.labels(backend.name).set(len(members))
        replicas = {member for backend in kept.values() for member in backend.ring.members}
        gone = self._backends.keys() - kept.keys()
        before = {pattern: self._route_of(pattern) for pattern, _ in self._breakers}
        self._backends = kept
        self._table = RouteTable(configured_routes(backends, routes))
        for pattern, replica in list(self._breakers):
            if replica not in replicas or self._route_of(pattern) != before[pattern]:
                del self._breakers[pattern, replica]  # what it has counted says nothing of another route
                metrics.circuit_state.labels(pattern, replica).set(0)
        self._forget_gauges(gone, circuits - self._circuits_shown())

    def _circuits_shown(self) -> set[tuple[str, str]]:
        """(route, replica) of every circuit that the metrics show."""
        shown = set(self._breakers)
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
        if route is None or route.backend not in self._backends:
            self._fail_unroutable(call)
            return
        backend = self._backends[route.backend]
        now_s = self.monotonic_s()
        pinned = None
        if call.session is not None and not call.opens_session:
            upstream = call.session.upstream(route.backend)
            if upstream is None:
                text = f"the session was never opened at backend {route.backend!r}"
                self._fail(call, "upstream_failed", text, route.backend, is_session_lost=True)
                return
            pinned = upstream.replica
            if pinned not in backend.ring.members:
                self._fail(call, "upstream_failed", "the session's replica was removed", route.backend, is_session_lost=True)
                return
            if call.kind is CallKind.REQUEST and self._shall_move(backend, route, call, pinned, now_s):
                text = "the session's replica can take no calls now, another one can"
                self._fail(call, "upstream_failed", text, route.backend, replica=pinned, is_session_lost=True)
                return
        if call.pinned_to:
            if call.pinned_to not in backend.ring.members:
                text = "the replica that held the call was removed; the call was lost and was NOT run again"
                self._fail(call, "upstream_failed", text, route.backend)
                return
            pinned = call.pinned_to
        refused_until_s = None
        for replica in (pinned,) if pinned is not None else backend.ring.preference_list(_hash_key(route, call)):
            if replica in call.excluded or (pinned is None and (replica in backend.ejected or backend.is_draining)):
                continue
            breaker = self._breakers.get((route.pattern, replica))
            is_trial = False
            if breaker is not None and breaker.state is not CircuitState.CLOSED:
                before = breaker.state
                if not breaker.allows(now_s, call.call_id):
                    refused_until_s = min(refused_until_s or 3600.0, breaker.retry_after_s(now_s))
                    continue
                is_trial = True
                if before is not breaker.state:
                    self._announce(route.pattern, replica, Transition(before, breaker.state), breaker)
            self.send(
                self.addresses["connection-pool"],
                LeaseCall(
                    call=call,
                    backend=route.backend,
                    replica=replica,
                    route=route.pattern,
                    is_trial=is_trial,
                    router=self.myAddress,
                ),
            )
            return
        if refused_until_s is not None:
            text = f"every circuit to backend {route.backend!r} is open"
            self._fail(call, "circuit_open", text, route.backend, retry_after_s=max(refused_until_s, 0.1))
        elif backend.is_draining:
            self._fail(call, "draining", f"backend {route.backend!r} is draining", route.backend)
        elif call.excluded & backend.ring.members:
            self._fail(call, "upstream_failed", f"no replica of backend {route.backend!r} could be reached", route.backend)
        else:
            self._fail(call, "no_backend", f"no replica of backend {route.backend!r} can take this call", route.backend)

    def _shall_move(self, backend: _Backend, route: Route, call: Call, pinned: str, now_s: float) -> bool:
        """Whether a session should leave its replica: that one is ejected or its circuit open, and another can take the call.

        Only requests move a session: a cancellation or a client's response is of use nowhere but where its request runs.
        """

        def can_take(replica: str) -> bool:
            breaker = self._breakers.get((route.pattern, replica))
            return replica not in backend.ejected and (breaker is None or breaker.would_allow(now_s))

        if can_take(pinned) or backend.is_draining:
            return False
        return any(can_take(other) for other in backend.ring.members if other != pinned and other not in call.excluded)

    def _route_for(self, call: Call) -> Route | None:
        """The route whose pattern matches; a call that is bound to a backend falls back on that backend's own."""
        route = self._table.match(call.target, call.transport)
        if not call.backend or (route is not None and route.backend == call.backend):
            return route
        if route is None and call.is_merged and self._table.is_routed(call.target):
            return None  # its routes exclude this transport
        backend = self._backends.get(call.backend)
        return None if backend is None else backend.own_route

    def _fail_unroutable(self, call: Call) -> None:
        method, _, item = call.target.rpartition("/") if call.target.count("/") > 1 else (call.target, "", "")
        if call.backend and call.backend not in self._backends:
            self._fail(call, "no_backend", f"backend {call.backend!r} is not configured", call.backend)
        elif item or is_known_method(method, call.revision):
            self._fail(call, "invalid_params", f"no backend offers {call.target[:200]!r}", "")
        else:
            self._fail(call, "unknown_method", f"unknown method {call.target[:200]!r}", "")

    def _fail(
        self,
        call: Call,
        reason: str,
        text: str,
        backend: str,
        *,
        replica: str = "",
        is_session_lost: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        failed = CallFailed(
            call_id=call.call_id,
            reason=reason,
            text=text,
            backend=backend,
            replica=replica,
            is_session_lost=is_session_lost,
            retry_after_s=retry_after_s,
        )
        self.send(call.edge, failed)

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, RouteCall):
            self._fail(message.call, "upstream_failed", "the router was restarted", message.call.backend)

    # ---- outcomes

    def receiveMsg_CallFaulted(self, message: CallFaulted, sender: ActorAddress) -> None:
        key = (message.route, message.replica)
        breaker = self._breakers.get(key)
        if breaker is None:
            route = self._route_of(message.route)
            if route is None:
                return
            breaker = self._breakers[key] = CircuitBreaker(route.failure_threshold, route.reset_timeout_s)
        transition = breaker.record_failure(self.monotonic_s())
        if transition is not None:
            self._announce(message.route, message.replica, transition, breaker)

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

    def _route_of(self, pattern: str) -> Route | None:
        if pattern.startswith("backend/"):
            backend = self._backends.get(pattern.removeprefix("backend/"))
            return None if backend is None else backend.own_route
        return next((route for route in self._table.routes if route.pattern == pattern), None)

    def _announce(self, route: str, replica: str, transition: Transition, breaker: CircuitBreaker) -> None:
        self.log(logging.WARNING, f"circuit {transition.old.name} -> {transition.new.name}", route=route, replica=replica)
        metrics.circuit_state.labels(route, replica).set(breaker.gauge)
        self._publish(_CIRCUIT_TOPICS[transition.new], {"route": route, "replica": replica})

    # ---- ejection

    def receiveMsg_ReplicaEjected(self, message: ReplicaEjected, sender: ActorAddress) -> None:
        backend = self._backends.get(message.backend)
        if backend is not None and message.replica in backend.ring.members:
            backend.ejected[message.replica] = message.reason

    def receiveMsg_ReplicaRestored(self, message: ReplicaRestored, sender: ActorAddress) -> None:
        """Its probes succeed again: its circuits need not wait for their own time to try it.

        Source: Envoy manual, outlier detection, `successful_active_health_check_uneject_host` (on by default).
        """
        backend = self._backends.get(message.backend)
        if backend is None or backend.ejected.pop(message.replica, None) is None:
            return
        for (pattern, replica), breaker in list(self._breakers.items()):
            route = self._route_of(pattern)
            if replica == message.replica and route is not None and route.backend == message.backend:
                closed = self._breakers[pattern, replica] = CircuitBreaker(route.failure_threshold, route.reset_timeout_s)
                if breaker.state is not closed.state:
                    self._announce(pattern, replica, Transition(breaker.state, closed.state), closed)

    def receiveMsg_EventPublished(self, message: EventPublished, sender: ActorAddress) -> None:
        backend, replica = str(message.payload.get("backend")), str(message.payload.get("replica"))
        if message.topic == "mcp.replica.ejected":
            self.receiveMsg_ReplicaEjected(ReplicaEjected(backend, replica, str(message.payload.get("reason"))), sender)
        elif message.topic == "mcp.replica.restored":
            self.receiveMsg_ReplicaRestored(ReplicaRestored(backend, replica), sender)

    # ---- questions

    def receiveMsg_ProbeComponent(self, message: ProbeComponent, sender: ActorAddress) -> None:
        problem = "" if self._backends else "no backend is configured"
        self.send(sender, ComponentProbed(message.request_id, "router", problem))

    def receiveMsg_StatusRequested(self, message: StatusRequested, sender: ActorAddress) -> None:
        status = {
            name: {
                member: {
                    "health": "unhealthy" if member in backend.ejected else "healthy",
                    "circuit": self._worst_circuit(member),
                    "ring_share": round(backend.ring.share(member), 4),
                }
                for member in backend.ring.members
            }
            for name, backend in self._backends.items()
        }
        self.send(sender, StatusReported(message.request_id, status))

    def _worst_circuit(self, replica: str) -> str:
        states = [breaker for (_, member), breaker in self._breakers.items() if member == replica]
        return max(states, key=lambda breaker: breaker.gauge).state.name.lower() if states else "closed"

    def _publish(self, topic: str, payload: dict[str, object]) -> None:
        self.send(self.addresses["event-bus"], PublishEvent(topic=topic, payload=payload))


def _hash_key(route: Route, call: Call) -> str:
    """The value of the first source that this call has; calls without any spread by their id."""
    for source in route.hash_on:
        value = call.hash_keys.get(source)
        if value:
            return value
    return str(call.call_id)
