"""The choice of a replica: a table of situations, and what holds in all of them. What the router does with it: test_router.py."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mcp_gateway.actors.messages.calls import Call, CallFailed
from mcp_gateway.actors.routing.bounded_load import Loads
from mcp_gateway.actors.routing.circuit_breaker import CircuitBreaker, CircuitState
from mcp_gateway.actors.routing.hash_ring import HashRing
from mcp_gateway.actors.routing.replica_choice import Backend, Chosen, Ejection, choose, has_other, may_open, no_route
from mcp_gateway.actors.routing.route_table import Route
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession

NOW_S, RESET_S = 1_000.0, 30.0
ROUTE = Route(pattern="tools/call/*", backend="b", hash_on=("user",), failure_threshold=1, reset_timeout_s=RESET_S)
RING = HashRing(16)
for _name in ("x", "y", "z"):
    RING.add(_name)
FIRST, SECOND, THIRD = RING.preference_list("ada")


def at(address: str) -> ReplicaId:
    return ReplicaId("b", address)


def call_of_ada(**fields: Any) -> Call:
    values: dict[str, Any] = {
        "call_id": 7, "edge": None, "kind": RequestKind.REQUEST, "transport": "websocket", "revision": "2026-07-28",
        "target": "tools/call/t", "hash_keys": {"user": "ada"}, "deadline_s": NOW_S + 60,
    }  # fmt: skip
    return Call(**{**values, **fields})


def session_at(replica: str, backend: str = "b") -> SessionState:
    return SessionState("key", "", "2025-11-25", "", b"{}", (UpstreamSession(backend, replica, "s", "2025-11-25"),))


def fail(breaker: CircuitBreaker, now_s: float) -> None:
    for client in ("192.0.2.1", "192.0.2.2"):
        breaker.record_failure(now_s, client)


def circuit(state: str, opened_s_ago: float = 0.0) -> CircuitBreaker:
    """closed; open, for RESET_S less what is over; due, for its trial; half open: a trial runs; abandoned: it has ended."""
    breaker = CircuitBreaker(1, RESET_S)
    if state == "closed":
        breaker.record_success(NOW_S)
    elif state == "open":
        fail(breaker, NOW_S - opened_s_ago)
    else:
        fail(breaker, NOW_S - 2 * RESET_S)
        if state != "due":
            breaker.allows(NOW_S - opened_s_ago, 1)
        if state == "abandoned":
            breaker.abandon_trial(1)
    return breaker


@attrs.frozen(kw_only=True)
class Situation:
    call: Call = attrs.field(factory=call_of_ada)
    ejected: frozenset[str] = frozenset()
    is_draining: bool = False
    draining: frozenset[str] = frozenset()
    circuits: dict[str, CircuitBreaker] = attrs.field(factory=dict)

    def choose(self, now_s: float = NOW_S, route: Route = ROUTE) -> Chosen | CallFailed:
        backend = Backend(RING, ROUTE, dict.fromkeys(self.ejected, Ejection("down")), self.is_draining, self.draining)
        breakers = {(ROUTE.pattern, at(replica)): breaker for replica, breaker in self.circuits.items()}
        return choose(self.call, route, backend, breakers, now_s)


def open_at(*replicas: str) -> dict[str, CircuitBreaker]:
    return {replica: circuit("open") for replica in replicas}


ALL = (FIRST, SECOND, THIRD)
OF_SESSION = call_of_ada(session=session_at(SECOND))


@pytest.mark.parametrize(
    ("situation", "replica"),
    [
        (Situation(), FIRST),
        (Situation(ejected=frozenset({FIRST})), SECOND),
        (Situation(circuits=open_at(FIRST)), SECOND),
        (Situation(circuits=open_at(FIRST), ejected=frozenset({SECOND})), THIRD),
        (Situation(call=call_of_ada(excluded=frozenset({FIRST, SECOND}))), THIRD),
        (Situation(circuits={FIRST: circuit("closed")}), FIRST),
        # What is bound to a replica goes there, whatever is said of it, as long as its circuit lets it.
        (Situation(call=OF_SESSION), SECOND),
        (Situation(call=OF_SESSION, is_draining=True), SECOND),
        (Situation(call=OF_SESSION, ejected=frozenset(ALL)), SECOND),
        (Situation(call=OF_SESSION, ejected=frozenset({SECOND}), is_draining=True), SECOND),
        (Situation(call=replace(OF_SESSION, kind=RequestKind.MESSAGE), ejected=frozenset({SECOND})), SECOND),
        (Situation(call=call_of_ada(pinned_to=THIRD), ejected=frozenset({THIRD}), is_draining=True), THIRD),
        # An initialize is not bound to where the session was.
        (Situation(call=replace(OF_SESSION, opens_session=True)), FIRST),
    ],
)
def test_a_call_goes_to(situation: Situation, replica: str) -> None:
    assert situation.choose() == Chosen(at(replica), is_trial=False)


@pytest.mark.parametrize(
    ("state", "chosen"),
    [
        ("closed", Chosen(at(FIRST), is_trial=False)),
        ("open", Chosen(at(SECOND), is_trial=False)),
        ("due", Chosen(at(FIRST), is_trial=True)),
        ("half open", Chosen(at(SECOND), is_trial=False)),
        ("abandoned", Chosen(at(FIRST), is_trial=True)),
    ],
)
def test_a_circuit_decides_whether_the_preferred_replica_is_tried(state: str, chosen: Chosen) -> None:
    assert Situation(circuits={FIRST: circuit(state)}).choose() == chosen


def test_the_circuit_of_another_route_does_not_matter() -> None:
    backend, breakers = Backend(RING, ROUTE), {("other/*", at(FIRST)): circuit("open")}
    assert choose(call_of_ada(), ROUTE, backend, breakers, NOW_S) == Chosen(at(FIRST), is_trial=False)


@pytest.mark.parametrize(
    ("situation", "reason", "words"),
    [
        (Situation(ejected=frozenset(ALL)), "no_backend", "can take this call"),
        (Situation(is_draining=True), "draining", "is draining"),
        (Situation(is_draining=True, circuits=open_at(*ALL)), "draining", "is draining"),
        (Situation(call=call_of_ada(excluded=frozenset(ALL))), "upstream_failed", "could be reached"),
        (Situation(circuits=open_at(*ALL)), "circuit_open", "every circuit"),
        (Situation(circuits=open_at(FIRST), ejected=frozenset({SECOND, THIRD})), "circuit_open", "every circuit"),
        (Situation(call=OF_SESSION, circuits=open_at(*ALL)), "circuit_open", "every circuit"),
        (Situation(call=call_of_ada(pinned_to=THIRD), circuits=open_at(THIRD)), "circuit_open", "every circuit"),
        (Situation(call=call_of_ada(pinned_to="gone")), "upstream_failed", "NOT run again"),
    ],
)
def test_a_call_that_no_replica_may_take_is_refused_as(situation: Situation, reason: str, words: str) -> None:
    failed = situation.choose()
    assert isinstance(failed, CallFailed)
    assert (failed.call_id, failed.why.reason, failed.backend, words in failed.why.text) == (7, reason, "b", True)
    assert (failed.why.fate.was_sent, failed.why.fate is Fate.SESSION_LOST, failed.replica) == (False, False, "")


@pytest.mark.parametrize(
    ("situation", "left"),
    [
        (Situation(call=call_of_ada(session=session_at("gone"))), ""),
        (Situation(call=call_of_ada(session=session_at(FIRST, "another backend"))), ""),
        (Situation(call=OF_SESSION, ejected=frozenset({SECOND})), SECOND),
        (Situation(call=OF_SESSION, circuits=open_at(SECOND)), SECOND),
        (Situation(call=OF_SESSION, circuits=open_at(SECOND, FIRST)), SECOND),
    ],
)
def test_a_session_that_its_replica_cannot_serve_and_another_one_can_is_lost(situation: Situation, left: str) -> None:
    failed = situation.choose()
    assert isinstance(failed, CallFailed)
    assert (failed.why.reason, failed.why.fate is Fate.SESSION_LOST, failed.why.fate.was_sent, failed.replica) == (
        "upstream_failed",
        True,
        False,
        left,
    )


@pytest.mark.parametrize(
    ("circuits", "retry_after_s"),
    [
        ({FIRST: circuit("open", 10.0), SECOND: circuit("open", 20.0), THIRD: circuit("half open", 5.0)}, 10.0),
        (dict.fromkeys(ALL, circuit("half open", 29.99)), 0.1),
    ],
)
def test_a_refused_client_is_told_when_the_first_circuit_lets_a_call_through(
    circuits: dict[str, CircuitBreaker], retry_after_s: float
) -> None:
    failed = Situation(circuits=circuits).choose()
    assert isinstance(failed, CallFailed)
    assert failed.why.retry_after_s == pytest.approx(retry_after_s)


@pytest.mark.parametrize(
    ("target", "backend", "reason"),
    [
        ("tools/call/nobody__x", "", "invalid_params"),
        ("tools/list", "", "invalid_params"),
        ("nonsense", "", "unknown_method"),
        ("tools/call/x", "gone", "no_backend"),
        ("tools/call/x", "b", "invalid_params"),
    ],
)
def test_a_call_without_a_route_fails_as(target: str, backend: str, reason: str) -> None:
    failed = no_route(call_of_ada(target=target, backend=backend), {"b"})
    assert (failed.call_id, failed.why.reason, failed.why.fate.was_sent) == (7, reason, False)


# ---- whatever the situation

_replicas = st.frozensets(st.sampled_from(ALL))
_states = st.sampled_from(["closed", "open", "due", "half open", "abandoned"])
_bindings = st.one_of(
    st.just({}),
    st.builds(lambda replica: {"session": session_at(replica)}, st.sampled_from((*ALL, "gone"))),
    st.builds(lambda replica: {"pinned_to": replica}, st.sampled_from((*ALL, "gone"))),
)
_situations = st.builds(
    lambda binding, excluded, kind, ejected, is_draining, circuits: Situation(
        call=call_of_ada(excluded=excluded, kind=kind, **binding),
        ejected=ejected,
        is_draining=is_draining,
        circuits={replica: circuit(state, opened_s_ago) for replica, (state, opened_s_ago) in circuits.items()},
    ),
    _bindings,
    _replicas,
    st.sampled_from(RequestKind),
    _replicas,
    st.booleans(),
    st.dictionaries(st.sampled_from(ALL), st.tuples(_states, st.floats(0.0, RESET_S - 0.2))),
)


@given(_situations)
def test_the_chosen_replica_may_take_the_call_and_no_preferred_one_may(situation: Situation) -> None:
    chosen = situation.choose()
    if isinstance(chosen, CallFailed):
        return
    call, breaker = situation.call, situation.circuits.get(chosen.replica.address)
    assert chosen.replica.address not in call.excluded
    assert chosen.is_trial is (breaker is not None and breaker.state is not CircuitState.CLOSED)
    if call.session is not None or call.pinned_to:
        home = call.pinned_to or call.session.upstream("b").replica  # type: ignore[union-attr]
        assert chosen.replica.address == home
    else:
        assert not situation.is_draining
        passed_over = ALL[: ALL.index(chosen.replica.address)]
        shut = {replica for replica, each in situation.circuits.items() if not each.would_allow(NOW_S)}
        assert chosen.replica.address not in situation.ejected
        assert set(passed_over) <= call.excluded | situation.ejected | shut
    if breaker is not None:
        assert breaker.allows(NOW_S), "last, because it takes the trial"


@given(_situations)
def test_to_choose_changes_nothing(situation: Situation) -> None:
    def circuits() -> dict[str, tuple[CircuitState, float]]:
        return {replica: (each.state, each.retry_after_s(NOW_S)) for replica, each in situation.circuits.items()}

    before, chosen = circuits(), situation.choose()
    assert (situation.choose(), circuits()) == (chosen, before)


@given(_situations)
def test_whoever_comes_back_when_told_is_not_kept_out_by_the_same_circuits(situation: Situation) -> None:
    refused = situation.choose()
    if isinstance(refused, CallFailed) and refused.why.reason == "circuit_open":
        assert refused.why.retry_after_s is not None
        assert 0.1 <= refused.why.retry_after_s <= RESET_S
        later = situation.choose(NOW_S + refused.why.retry_after_s + 0.001)
        assert not isinstance(later, CallFailed) or later.why.fate is Fate.SESSION_LOST
    else:
        assert isinstance(refused, Chosen) or refused.why.retry_after_s is None


def test_a_call_that_no_replica_takes_yet_is_told_of_the_one_that_is_tried_first() -> None:
    ejected = {FIRST: Ejection("refused"), SECOND: Ejection("loops", NOW_S + 40.0), THIRD: Ejection("loops too", NOW_S + 12.5)}
    failed = choose(call_of_ada(), ROUTE, Backend(RING, ROUTE, ejected), {}, NOW_S)
    assert isinstance(failed, CallFailed)
    assert failed.why.text == "no replica of backend 'b' can take this call: loops too"
    assert (failed.why.reason, failed.why.retry_after_s) == ("no_backend", 12.5)
    later = choose(call_of_ada(), ROUTE, Backend(RING, ROUTE, ejected), {}, NOW_S + 41.0)
    assert isinstance(later, CallFailed)
    assert (later.why.text, later.why.retry_after_s) == ("no replica of backend 'b' can take this call", None)


def test_a_call_is_told_how_long_it_is_until_the_next_try_now_and_not_how_long_it_was() -> None:
    reason = "crash loop, next try in 40 s: failed 6 times in a row"
    backend = Backend(RING, ROUTE, dict.fromkeys(ALL, Ejection(reason, NOW_S + 40.0)))
    for later_s, told in ((0.0, 40), (27.5, 13), (39.9, 1)):
        failed = choose(call_of_ada(), ROUTE, backend, {}, NOW_S + later_s)
        assert isinstance(failed, CallFailed)
        assert f"crash loop, next try in {told} s: failed 6 times in a row" in failed.why.text


# ---- the last resort


def mistrusted() -> CircuitBreaker:
    """Open for 0.6 s, and for another 0.4 s if another replica can take its calls: its probes are good and its trial failed."""
    breaker = CircuitBreaker(1, RESET_S)
    fail(breaker, NOW_S - 1)
    breaker.record_probe(NOW_S - 1, is_well=True)
    assert breaker.allows(NOW_S - 0.6)
    breaker.record_failure(NOW_S - 0.6, "192.0.2.1")
    breaker.record_probe(NOW_S - 0.6, is_well=True)
    return breaker


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(circuits={FIRST: mistrusted()}), Chosen(at(SECOND), is_trial=False)),
        (
            Situation(circuits={FIRST: mistrusted(), SECOND: circuit("open"), THIRD: circuit("due")}),
            Chosen(at(THIRD), is_trial=True),
        ),
        (
            Situation(circuits={**open_at(FIRST, THIRD), SECOND: mistrusted()}),
            Chosen(at(SECOND), is_trial=True, is_last_resort=True),
        ),
        (
            Situation(circuits={FIRST: mistrusted()}, ejected=frozenset({SECOND, THIRD})),
            Chosen(at(FIRST), is_trial=True, is_last_resort=True),
        ),
    ],
)
def test_a_replica_whose_trials_failed_is_tried_sooner_where_the_call_would_be_refused(
    situation: Situation, expected: Chosen
) -> None:
    assert situation.choose() == expected


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("192.0.2.1", Chosen(at(SECOND), is_trial=False)),
        ("192.0.2.2", Chosen(at(FIRST), is_trial=True)),
        ("", Chosen(at(SECOND), is_trial=False)),
    ],
)
def test_a_replica_whose_trial_one_client_has_failed_is_tried_by_another_one_at_once(client: str, expected: Chosen) -> None:
    breaker = CircuitBreaker(1, RESET_S)
    fail(breaker, NOW_S - 1)
    breaker.record_probe(NOW_S - 1, is_well=True)
    assert breaker.allows(NOW_S - 0.6, client="192.0.2.1")
    breaker.record_failure(NOW_S - 0.6, "192.0.2.1")
    breaker.record_probe(NOW_S - 0.6, is_well=True)
    call = call_of_ada(hash_keys={"user": "ada", "ip": client})
    assert Situation(call=call, circuits={FIRST: breaker}).choose() == expected


# ---- hedges

HEDGE = call_of_ada(call_id=8, hedges=7)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(call=HEDGE), SECOND),
        (Situation(call=HEDGE, ejected=frozenset({FIRST})), THIRD),
        (Situation(call=HEDGE, circuits=open_at(SECOND)), THIRD),
        (Situation(call=HEDGE, circuits={SECOND: circuit("due")}), THIRD),
        (Situation(call=HEDGE, circuits=open_at(SECOND, THIRD)), "no_backend"),
        (Situation(call=HEDGE, ejected=frozenset(ALL)), "no_backend"),
    ],
)
def test_a_hedge_goes_where_the_call_that_it_hedges_is_not(situation: Situation, expected: str) -> None:
    chosen = situation.choose()
    assert (chosen.why.reason if isinstance(chosen, CallFailed) else chosen.replica.address) == expected


def test_calls_without_a_key_are_hedged_elsewhere_as_well() -> None:
    for number in range(50):
        call = call_of_ada(call_id=number, hash_keys={})
        first, hedge = (Situation(call=each).choose() for each in (call, replace(call, call_id=1_000, hedges=number)))
        if number:
            assert first != hedge


# ---- draining replicas


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(draining=frozenset({FIRST})), SECOND),
        (Situation(draining=frozenset({FIRST}), ejected=frozenset({SECOND})), THIRD),
        (Situation(draining=frozenset({FIRST}), ejected=frozenset({SECOND, THIRD})), "no_backend"),
        (Situation(draining=frozenset(ALL)), "draining"),
        # Sessions that are open go on, and no session moves to one that drains.
        (Situation(call=OF_SESSION, draining=frozenset({SECOND})), SECOND),
        (Situation(call=OF_SESSION, draining=frozenset({FIRST, THIRD}), circuits=open_at(SECOND)), "circuit_open"),
        (Situation(call=replace(OF_SESSION, opens_session=True), draining=frozenset({FIRST})), SECOND),
    ],
)
def test_a_replica_that_drains_takes_only_what_is_bound_to_it(situation: Situation, expected: str) -> None:
    chosen = situation.choose()
    assert (chosen.why.reason if isinstance(chosen, CallFailed) else chosen.replica.address) == expected


# ---- bounded loads, slow start


def chosen_for(route: Route, *, load: dict[str, int], returned: dict[str, float] | None = None, **rest: Any) -> list[str]:
    """Where sixty users' calls would go."""
    loads = Loads()
    for address, count in load.items():
        for _ in range(count):
            loads.begin(at(address))
    backend = Backend(RING, route, returned_at_s=returned or {})
    calls = (call_of_ada(hash_keys={"user": f"user-{number}"}, **rest) for number in range(60))
    chosen = [choose(call, route, backend, {}, NOW_S, loads) for call in calls]
    assert not any(isinstance(each, CallFailed) for each in chosen)
    return [each.replica.address for each in chosen if isinstance(each, Chosen)]


BOUNDED = attrs.evolve(ROUTE, hash_balance_factor=1.25)
SLOW_START = attrs.evolve(ROUTE, slow_start_s=20.0)


def test_a_replica_that_has_its_share_of_the_calls_passes_its_keys_on() -> None:
    usual = chosen_for(ROUTE, load={FIRST: 9, SECOND: 3, THIRD: 3})
    assert chosen_for(BOUNDED, load={}) == usual
    bounded = chosen_for(BOUNDED, load={FIRST: 9, SECOND: 3, THIRD: 3})
    assert FIRST in usual
    assert set(bounded) == {SECOND, THIRD}
    assert all(was == now for was, now in zip(usual, bounded, strict=True) if was != FIRST), "no other key moves"


def test_what_is_bound_to_a_replica_goes_there_whatever_its_load() -> None:
    assert set(chosen_for(BOUNDED, load={SECOND: 99}, session=session_at(SECOND))) == {SECOND}
    assert set(chosen_for(SLOW_START, load={}, returned={SECOND: NOW_S}, session=session_at(SECOND))) == {SECOND}


def test_where_all_are_passed_over_the_preferred_one_takes_the_call() -> None:
    usual = chosen_for(ROUTE, load={})
    assert chosen_for(SLOW_START, load={}, returned=dict.fromkeys(ALL, NOW_S)) == usual
    both = attrs.evolve(SLOW_START, hash_balance_factor=1.01)
    assert FIRST in chosen_for(both, load={FIRST: 9}, returned=dict.fromkeys((SECOND, THIRD), NOW_S))


def test_a_replica_that_has_returned_takes_its_keys_back_bit_by_bit_and_only_those() -> None:
    usual = chosen_for(ROUTE, load={})
    own = [index for index, address in enumerate(usual) if address == FIRST]
    before: set[int] = set()
    for elapsed_s in (0.0, 5.0, 10.0, 15.0, 20.0):
        now = chosen_for(SLOW_START, load={}, returned={FIRST: NOW_S - elapsed_s})
        taken = {index for index in own if now[index] == FIRST}
        assert before <= taken
        assert all(now[index] == usual[index] for index in range(60) if index not in own)
        before = taken
    assert before == set(own)
    assert len(own) > 5


# ---- panic

PANIC = attrs.evolve(ROUTE, panic=True)


@pytest.mark.parametrize(
    ("situation", "replica"),
    [
        (Situation(circuits=open_at(*ALL)), FIRST),
        (Situation(ejected=frozenset(ALL)), FIRST),
        (Situation(call=call_of_ada(excluded=frozenset({FIRST})), ejected=frozenset(ALL)), SECOND),
        (Situation(call=OF_SESSION, circuits=open_at(*ALL)), SECOND),
        (Situation(call=call_of_ada(pinned_to=THIRD), circuits=open_at(THIRD)), THIRD),
    ],
)
def test_a_route_that_may_panic_tries_a_replica_that_is_out_rather_than_none(situation: Situation, replica: str) -> None:
    assert situation.choose(route=PANIC) == Chosen(at(replica), is_trial=False, is_panic=True)


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(ejected=frozenset({FIRST, SECOND})), Chosen(at(THIRD), is_trial=False)),
        (Situation(circuits={**open_at(FIRST, SECOND), THIRD: circuit("due")}), Chosen(at(THIRD), is_trial=True)),
        (Situation(is_draining=True, ejected=frozenset(ALL)), "draining"),
        (Situation(call=call_of_ada(excluded=frozenset(ALL)), ejected=frozenset(ALL)), "upstream_failed"),
    ],
)
def test_it_does_not_panic_where_another_can_take_the_call_or_nobody_shall(situation: Situation, expected: object) -> None:
    chosen = situation.choose(route=PANIC)
    assert (chosen.why.reason if isinstance(chosen, CallFailed) else chosen) == expected


# ---- how many may be out


@pytest.mark.parametrize(
    ("share", "replica_count", "most"),
    [
        (0.5, 1, 1),
        (0.5, 2, 1),
        (0.5, 3, 1),
        (0.5, 4, 2),
        (0.5, 5, 2),
        (0.0, 4, 1),
        (0.1, 4, 1),
        (1.0, 3, 3),
        (0.34, 3, 1),
        (0.67, 3, 2),
    ],
)
@pytest.mark.parametrize("how", ["open", "half open", "ejected"])
def test_calls_keep_out_a_share_of_the_replicas_and_one_of_however_few(
    how: str, share: float, replica_count: int, most: int
) -> None:
    ring = HashRing(16)
    addresses = [f"r{number}" for number in range(replica_count)]
    for address in addresses:
        ring.add(address)
    route = attrs.evolve(ROUTE, max_ejected_share=share)
    for out_count in range(replica_count):
        out, asking = addresses[:out_count], (ROUTE.pattern, at(addresses[-1]))
        breakers = {(ROUTE.pattern, at(address)): circuit(how) for address in out if how != "ejected"}
        backend = Backend(ring, route, dict.fromkeys(out if how == "ejected" else (), Ejection("down")))
        assert may_open(asking, route, backend, breakers) is (out_count < most)


def test_a_replica_is_not_counted_against_itself_nor_a_circuit_of_another_route() -> None:
    backend = Backend(RING, ROUTE, {FIRST: Ejection("down")})
    breakers = {("other/*", at(address)): circuit("open") for address in ALL}
    assert may_open((ROUTE.pattern, at(FIRST)), ROUTE, backend, breakers)
    assert not may_open((ROUTE.pattern, at(SECOND)), ROUTE, backend, breakers)


@pytest.mark.parametrize(
    ("out", "ejected", "answer"),
    [
        ({}, (), True),
        ({SECOND: "open"}, (), True),
        ({SECOND: "open", THIRD: "open"}, (), False),
        ({SECOND: "open"}, (THIRD,), False),
        ({SECOND: "due"}, (THIRD,), True),
        ({SECOND: "half open", THIRD: "half open"}, (), False),
        ({FIRST: "open"}, (FIRST, SECOND, THIRD), False),
    ],
)
def test_another_replica_can_take_its_calls(out: dict[str, str], ejected: tuple[str, ...], answer: bool) -> None:
    breakers = {(ROUTE.pattern, at(replica)): circuit(state) for replica, state in out.items()}
    backend = Backend(RING, ROUTE, dict.fromkeys(ejected, Ejection("down")))
    assert has_other((ROUTE.pattern, at(FIRST)), ROUTE, backend, breakers, NOW_S) is answer
