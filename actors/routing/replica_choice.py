"""Decides which replica of a backend gets a call, or why none does. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import attrs
import msgspec

from mcp_gateway.actors.messages.calls import Call, CallFailed
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.revisions import is_known_method

from .bounded_load import Loads
from .circuit_breaker import CircuitBreaker, CircuitState
from .hash_ring import HashRing
from .outlier_window import OutlierRules
from .route_table import Route
from .slow_start import takes

CircuitKey = tuple[str, ReplicaId]
"""(pattern of a route, replica): one circuit."""

_LONGEST_RETRY_AFTER_S = 3600.0
_SHORTEST_RETRY_AFTER_S = 0.1
_NEXT_TRY = re.compile(r"next try in \d+ s")


@attrs.frozen
class Ejection:
    """reason: for people, of the moment when it was said. retry_at_s: when its server is tried again, where that is known."""

    reason: str
    retry_at_s: float | None = None


@attrs.define
class Backend:
    """What is known of one backend.

    own_route: serves calls that name the backend instead of a target.
    ejected:   {replica: why}.
    returned_at_s: {replica: since when it takes calls again, or at all}, of those that have been out or came later.
    draining_replicas: those that take no new sessions and no calls without one.
    """

    ring: HashRing
    own_route: Route
    ejected: dict[str, Ejection] = attrs.field(factory=dict)
    is_draining: bool = False
    draining_replicas: frozenset[str] = frozenset()
    returned_at_s: dict[str, float] = attrs.field(factory=dict)


class Chosen(msgspec.Struct, frozen=True):
    """The replica that gets the call.

    is_trial: its circuit is not closed, and the call has to take the trial.
    is_last_resort: with that trial, no other replica can take the call.
    is_panic: it may take no calls, but no other one may either.
    """

    replica: ReplicaId
    is_trial: bool
    is_last_resort: bool = False
    is_panic: bool = False


def choose(
    call: Call,
    route: Route,
    backend: Backend,
    breakers: Mapping[CircuitKey, CircuitBreaker],
    now_s: float,
    loads: Loads | None = None,
) -> Chosen | CallFailed:
    """Find the replica for a call: its session's own, or the first that its hash key prefers and that may take calls.

    One that has its share of the calls already, or has just returned and takes few, is passed over where another may take it.

    breakers: by circuit; none where it never failed. They are asked and not changed, as are loads.
    """

    def breaker_of(address: str) -> CircuitBreaker | None:
        return breakers.get((route.pattern, ReplicaId(route.backend, address))) if breakers else None

    def shut_s(address: str, *, is_last_resort: bool = False) -> float:
        """Seconds until its circuit lets this call through; 0.0 where it does now."""
        breaker = breaker_of(address)
        return 0.0 if breaker is None else breaker.retry_after_s(now_s, client=call.client, is_last_resort=is_last_resort)

    bound_to = _bound_to(call, route, backend, shut_s)
    if isinstance(bound_to, CallFailed):
        return bound_to
    able: list[Chosen] = []
    shut = []
    for address in _preferred(call, route, backend, bound_to):
        if bound_to is None and address in backend.ejected:
            continue
        if shut_s(address) == 0.0:
            breaker = breaker_of(address)
            is_trial = breaker is not None and breaker.state is not CircuitState.CLOSED
            able.append(Chosen(ReplicaId(route.backend, address), is_trial=is_trial))
            if bound_to is not None or not (call.hedges or _asks_for_more(route)):
                return able[0]
        else:
            shut.append(address)
    if call.hedges:  # the first is where the call is that it hedges; and a replica is not tried by a hedge
        others = [each for each in able[1:] if not each.is_trial]
        return others[0] if others else _nobody(call, route, backend, (), now_s)
    if able:
        return _first_with_room(able, call, route, backend, now_s, loads)
    waits_s = []
    for address in shut:
        waits_s.append(shut_s(address, is_last_resort=True))
        if waits_s[-1] == 0.0:
            return Chosen(ReplicaId(route.backend, address), is_trial=True, is_last_resort=True)
    if route.panic:
        for address in _preferred(call, route, backend, bound_to):
            return Chosen(ReplicaId(route.backend, address), is_trial=False, is_panic=True)
    return _nobody(call, route, backend, waits_s, now_s)


def new_breaker(route: Route, jitter: Callable[[], float]) -> CircuitBreaker:
    """A closed circuit, by the rules of its route."""
    rates = OutlierRules(
        window_s=route.rate_window_s,
        minimum_calls=route.rate_minimum_calls,
        failure_rate_threshold=route.failure_rate_threshold,
        slow_call_rate_threshold=route.slow_call_rate_threshold if route.slow_call_duration_s else 0.0,
    )
    return CircuitBreaker(route.failure_threshold, route.reset_timeout_s, rates, jitter)


def may_open(circuit: CircuitKey, route: Route, backend: Backend, breakers: Mapping[CircuitKey, CircuitBreaker]) -> bool:
    """Whether calls may keep one more replica of the route out: `max_ejected_share` of them, and one of however few.

    Those that probes have ejected are out as well. Past it a replica that fails is still tried: better than none at all.
    Source: Envoy manual, outlier detection, max_ejection_percent, of which one host may always be ejected.
    """

    def is_out(replica: ReplicaId) -> bool:
        breaker = breakers.get((route.pattern, replica))
        return replica.address in backend.ejected or (breaker is not None and breaker.state is not CircuitState.CLOSED)

    _, asking = circuit
    replicas = [ReplicaId(route.backend, address) for address in backend.ring.members]
    out_count = sum(is_out(replica) for replica in replicas if replica != asking)
    return out_count < max(1, int(route.max_ejected_share * len(replicas)))


def has_other(
    circuit: CircuitKey, route: Route, backend: Backend, breakers: Mapping[CircuitKey, CircuitBreaker], now_s: float
) -> bool:
    """Whether another replica can take the calls of this one."""
    _, asking = circuit
    for address in backend.ring.members - backend.ejected.keys() - {asking.address}:
        breaker = breakers.get((route.pattern, ReplicaId(route.backend, address)))
        if breaker is None or breaker.would_allow(now_s):
            return True
    return False


def no_route(call: Call, backends: Collection[str]) -> CallFailed:
    """Why a call that no route serves fails. backends: the names of those that are configured."""
    method, _, item = call.target.rpartition("/") if call.target.count("/") > 1 else (call.target, "", "")
    if call.backend and call.backend not in backends:
        return _failed(call, "no_backend", f"backend {call.backend!r} is not configured", call.backend)
    if item or is_known_method(method, call.revision):
        return _failed(call, "invalid_params", f"no backend offers {call.target[:200]!r}", "")
    return _failed(call, "unknown_method", f"unknown method {call.target[:200]!r}", "")


def _preferred(call: Call, route: Route, backend: Backend, bound_to: str | None) -> Iterator[str]:
    """The replicas that have not refused this very call, the one first that it would go to."""
    if bound_to is not None:
        candidates: Iterable[str] = (bound_to,)
    elif backend.is_draining:
        candidates = ()
    else:
        candidates = backend.ring.preference_list(_hash_key(route, call))
    out = call.excluded if bound_to is not None else call.excluded | backend.draining_replicas
    return (address for address in candidates if address not in out) if out else iter(candidates)


def _asks_for_more(route: Route) -> bool:
    """Whether it takes more to be chosen than to be the first that may take the call."""
    return route.hash_balance_factor > 0 or route.slow_start_s > 0


def _first_with_room(
    able: Sequence[Chosen], call: Call, route: Route, backend: Backend, now_s: float, loads: Loads | None
) -> Chosen:
    """The first that is not to be passed over; the first of all, where all are."""
    key, among = _hash_key(route, call), [each.replica for each in able]
    for each in able:
        returned_at_s = backend.returned_at_s.get(each.replica.address)
        if route.slow_start_s and returned_at_s is not None and not takes(key, returned_at_s, route.slow_start_s, now_s):
            continue
        if route.hash_balance_factor and loads is not None and not loads.has_room(each.replica, among, route.hash_balance_factor):
            continue
        return each
    return able[0]


def _bound_to(call: Call, route: Route, backend: Backend, shut_s: Callable[[str], float]) -> str | CallFailed | None:
    """The one replica that may take the call, because its session or its parked call is there; None where any may."""
    if call.pinned_to:
        if call.pinned_to in backend.ring.members:
            return call.pinned_to
        text = "the replica that held the call was removed; the call was lost and was NOT run again"
        return _failed(call, "upstream_failed", text, route.backend)
    if call.session is None or call.opens_session:
        return None
    upstream = call.session.upstream(route.backend)
    if upstream is None:
        return _session_lost(call, route, f"the session was never opened at backend {route.backend!r}")
    if upstream.replica not in backend.ring.members:
        return _session_lost(call, route, "the session's replica was removed")
    if call.kind is RequestKind.REQUEST and _shall_move(call, upstream.replica, backend, shut_s):
        text = "the session's replica can take no calls now, another one can"
        return _session_lost(call, route, text, replica=upstream.replica)
    return upstream.replica


def _nobody(call: Call, route: Route, backend: Backend, waits_s: Collection[float], now_s: float) -> CallFailed:
    """Why no replica takes the call. waits_s: of the circuits that kept it out."""
    if waits_s:
        text = f"every circuit to backend {route.backend!r} is open"
        return _failed(call, "circuit_open", text, route.backend, retry_after_s=_retry_after_s(min(waits_s)))
    if backend.is_draining or (backend.ring.members and backend.ring.members <= backend.draining_replicas):
        return _failed(call, "draining", f"backend {route.backend!r} is draining", route.backend)
    if call.excluded & backend.ring.members:
        return _failed(call, "upstream_failed", f"no replica of backend {route.backend!r} could be reached", route.backend)
    text = f"no replica of backend {route.backend!r} can take this call"
    known = [each for each in backend.ejected.values() if each.retry_at_s is not None and each.retry_at_s > now_s]
    if not known:
        return _failed(call, "no_backend", text, route.backend)
    retry_at_s, reason = min((each.retry_at_s or 0.0, each.reason) for each in known)
    reason = _NEXT_TRY.sub(f"next try in {math.ceil(retry_at_s - now_s)} s", reason)  # that was then
    return _failed(call, "no_backend", f"{text}: {reason}", route.backend, retry_after_s=_retry_after_s(retry_at_s - now_s))


def _retry_after_s(wait_s: float) -> float:
    return min(max(wait_s, _SHORTEST_RETRY_AFTER_S), _LONGEST_RETRY_AFTER_S)


def _shall_move(call: Call, home: str, backend: Backend, shut_s: Callable[[str], float]) -> bool:
    """Whether a session should leave its replica: that one is ejected or its circuit open, and another can take the call.

    Only requests move a session: a cancellation or a client's response is of use nowhere but where its request runs.
    """

    def can_take(replica: str) -> bool:
        return replica not in backend.ejected and shut_s(replica) == 0.0

    if can_take(home) or backend.is_draining:
        return False
    others = backend.ring.members - backend.draining_replicas - {home}
    return any(can_take(other) for other in others if other not in call.excluded)


def _hash_key(route: Route, call: Call) -> str:
    """The value of the first source that this call has; calls without any spread by their id."""
    for source in route.hash_on:
        value = call.hash_keys.get(source)
        if value:
            return value
    return str(call.hedges or call.call_id)


def _session_lost(call: Call, route: Route, text: str, replica: str = "") -> CallFailed:
    why = Failure(Fate.SESSION_LOST, text, reason="upstream_failed")
    return CallFailed(call_id=call.call_id, why=why, backend=route.backend, replica=replica)


def _failed(call: Call, reason: str, text: str, backend: str, *, retry_after_s: float | None = None) -> CallFailed:
    why = Failure(Fate.TURNED_AWAY, text, reason=reason, retry_after_s=retry_after_s)
    return CallFailed(call_id=call.call_id, why=why, backend=backend)
