"""Sensations: scales from 0 to 1, and what a run of samples makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.viability import sensations
from mcp_gateway.actors.viability.algedonic import ONSET
from mcp_gateway.actors.viability.sensations import Measurement, Sensations
from mcp_gateway.actors.viability.vital_signs import FEWEST_REQUESTS, BackendFlow, BackendVitals, VitalSigns

INFINITE = float("inf")
ONE, TWO = "http://127.0.0.1:3001/mcp", "http://127.0.0.1:3002/mcp"


def flow(*, requests: float = 100, faults: float = 0, p95_s: float | None = 0.02, exhausted: float = 0) -> BackendFlow:
    share = faults / requests if requests else 0.0
    return BackendFlow(
        requests_per_s=requests / 10,
        requests=requests,
        faults=faults,
        fault_share=share,
        p50_s=p95_s,
        p95_s=p95_s,
        slow_s=p95_s if requests >= FEWEST_REQUESTS else None,
        exhausted=exhausted,
    )


@pytest.mark.parametrize(
    ("requests", "faults", "hurts"),
    [(100, 0, False), (100, 1, False), (100, 10, True), (100, 100, True), (1, 1, True), (10, 1, False)],
)
def test_errors_hurt_from_one_in_ten_and_a_single_one_of_few_is_no_share(requests: int, faults: int, hurts: bool) -> None:
    assert (sensations.errors(flow(requests=requests, faults=faults)).level >= ONSET) is hurts


@pytest.mark.parametrize(
    ("p95_s", "drift", "requests", "hurts"),
    [(0.5, 2.0, 100, False), (0.5, 3.0, 100, True), (0.04, 30.0, 100, False), (5.0, 64.0, 2, False), (None, 1.0, 0, False)],
)
def test_latency_hurts_from_three_times_the_usual_unless_it_is_fast_all_the_same(
    p95_s: float | None, drift: float, requests: int, hurts: bool
) -> None:
    assert (sensations.latency(flow(p95_s=p95_s, requests=requests), drift).level >= ONSET) is hurts


def test_saturation_rises_from_busy_over_full_and_waiting_to_refused() -> None:
    levels = [sensations.saturation(flow(), use, queue).level for use, queue in ((0.1, 0), (0.92, 0), (1.0, 0), (1.0, 0.2))]
    levels.append(sensations.saturation(flow(exhausted=1), 1.0, 0.2).level)
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (0.0, 1.0)
    assert levels[2] >= ONSET


@pytest.mark.parametrize(
    ("replicas", "open_circuits", "level"),
    [
        ({}, set(), 0.0),
        ({ONE: 2.0, TWO: 2.0}, set(), 0.0),
        ({ONE: 1.0, TWO: 2.0}, set(), pytest.approx(1 / 6)),
        ({ONE: 0.0, TWO: 2.0}, set(), 0.5),
        ({ONE: 2.0, TWO: 2.0}, {ONE}, 0.5),
        ({ONE: 0.0, TWO: 0.0}, set(), 1.0),
    ],
)
def test_connections_hurt_by_the_share_of_replicas_that_are_down(
    replicas: dict[str, float], open_circuits: set[str], level: float
) -> None:
    assert sensations.connections(BackendVitals(replicas=replicas, open=open_circuits)).level == level


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9), st.integers(1, 10_000))
def test_every_level_is_within_0_and_1(leased: float, idle: float, waiting: float, lag_s: float, limit: int) -> None:
    vitals = BackendVitals(leased=leased, idle=idle, waiting=waiting)
    for feeling in (
        sensations.saturation(flow(), sensations.pool_use(vitals), waiting),
        sensations.crowding(leased, limit),
        sensations.loop_lag(lag_s),
        sensations.latency(flow(p95_s=lag_s), lag_s),
    ):
        assert 0.0 <= feeling.level <= 1.0  # Feeling refuses anything else


class Node:
    """Counters that a test moves, sampled once per second."""

    def __init__(self) -> None:
        self.sensations = Sensations()
        self.now_s = 0.0
        self.files = BackendVitals(idle=50, replicas={ONE: 2.0, TWO: 2.0})
        self.lost: dict[str, float] = {}

    def second(self, *, ok: int = 0, failed: int = 0, took_s: float = 0.01, lag_s: float = 0.0) -> Measurement:
        outcomes, buckets = self.files.outcomes, self.files.buckets
        for outcome, count in (("ok", ok), ("upstream_failed", failed)):
            outcomes[outcome] = outcomes.get(outcome, 0.0) + count
        for bound in (0.01, 0.1, 1.0, 10.0, INFINITE):
            buckets[bound] = buckets.get(bound, 0.0) + (ok + failed if took_s <= bound else 0)
        copy = BackendVitals(
            outcomes=dict(outcomes),
            buckets=dict(buckets),
            idle=self.files.idle,
            leased=self.files.leased,
            waiting=self.files.waiting,
            replicas=dict(self.files.replicas),
        )
        signs = VitalSigns(at_s=self.now_s, backends={"files": copy}, lost=dict(self.lost), loop_lag_s=lag_s)
        measured = self.sensations.measure(signs, {"http_sse": 1000})
        self.now_s += 1.0
        return measured


def hurting(measurement: Measurement) -> Mapping[str, str]:
    return {source: feeling.text for source, feeling in measurement.feelings.items() if feeling.level >= ONSET}


def test_a_slow_call_or_two_among_a_few_quick_ones_are_no_slow_backend_but_three_are() -> None:
    node = Node()
    for _ in range(4):
        node.second(ok=2)
    assert hurting(node.second(ok=1, took_s=5.0)) == {}
    measured = node.second(ok=1, took_s=5.0)
    assert hurting(measured) == {}
    assert measured.backends["files"].usual_p95_s == pytest.approx(0.01, rel=0.3)  # they are not the usual either
    assert set(hurting(node.second(ok=1, took_s=5.0))) == {"latency/files"}


def test_a_backend_that_becomes_slow_hurts_by_its_own_usual_and_stops_when_it_is_fast_again() -> None:
    node = Node()
    for _ in range(30):
        assert hurting(node.second(ok=20)) == {}
    for _ in range(9):
        slow = node.second(ok=20, took_s=1.0)
    assert set(hurting(slow)) == {"latency/files"}
    usual_s = slow.backends["files"].usual_p95_s
    assert usual_s is not None
    assert usual_s <= 0.02  # the slow time has not become the usual
    for _ in range(12):
        well = node.second(ok=20)
    assert hurting(well) == {}


def test_errors_are_over_when_the_window_is() -> None:
    node = Node()
    node.second(ok=10)
    assert set(hurting(node.second(ok=10, failed=10))) == {"errors/files"}
    for _ in range(12):
        well = node.second(ok=10)
    assert hurting(well) == {}
    assert well.elapsed_s == pytest.approx(10.0)


def test_a_queue_hurts_when_it_stays() -> None:
    node = Node()
    node.second()
    levels = []
    for waiting in (5, 0, 5, 5, 5):
        node.files.waiting = waiting
        levels.append(node.second().feelings["saturation/files"].level)
    assert levels[:4] == [0.0] * 4
    assert levels[4] >= ONSET


def test_restarts_hurt_for_a_minute_and_each_hurts_more() -> None:
    node = Node()
    levels = []
    for _ in range(3):
        node.sensations.note_restart("cell/0/router", node.now_s)
        levels.append(node.second().feelings["restarts"].level)
    assert levels == sorted(levels)
    assert levels[0] >= ONSET
    assert "3 restarts within a minute, the last of cell/0/router" in node.second().feelings["restarts"].text
    node.now_s += 60.0
    assert node.second().feelings["restarts"].level == 0.0


def test_events_that_were_lost_are_the_worst_backpressure() -> None:
    node = Node()
    node.second()
    node.sensations.note_backpressure("http_sse", node.now_s)
    assert ONSET <= node.second().feelings["backpressure/http_sse"].level < 1.0
    node.lost = {"http_sse": 3.0}
    assert node.second().feelings["backpressure/http_sse"].level == 1.0


def test_no_replica_anywhere_is_an_emergency_and_so_is_a_supervisor_that_gives_up() -> None:
    node = Node()
    node.files.replicas = {ONE: 0.0, TWO: 1.0}
    assert not node.second().feelings["viability"].is_emergency
    node.files.replicas = {ONE: 0.0, TWO: 0.0}
    assert node.second().feelings["viability"].is_emergency
    node.files.replicas = {ONE: 2.0, TWO: 0.0}
    assert not node.second().feelings["viability"].is_emergency
    node.sensations.note_escalation(node.now_s)
    assert node.second().feelings["viability"].is_emergency


def test_what_is_kept_of_a_backend_is_bounded_and_goes_with_it() -> None:
    node = Node()
    for _ in range(1_000):
        node.second(ok=1)
    sense = node.sensations.backends["files"]
    assert len(sense.series) == sensations.SERIES_LENGTH
    assert len(node.sensations._window) < 15
    node.sensations.measure(VitalSigns(at_s=node.now_s), {})
    assert node.sensations.backends == {}


@pytest.mark.parametrize(
    ("lags_s", "hurts"),
    [
        ((0.2, 0.2, 0.2, 0.0, 0.0, 0.2, 0.2, 0.2, 0.0), False),  # late now and then, as on a core that others use too
        ((0.2, 0.2, 0.2, 0.2, 0.3), True),
        ((0.2, 0.2, 0.2, 0.2, 0.04), False),
        ((0.0, 0.5), True),  # a stall
        ((0.49,), False),
    ],
)
def test_an_event_loop_that_is_late_hurts_when_it_lasts_and_a_stall_at_once(lags_s: tuple[float, ...], hurts: bool) -> None:
    node = Node()
    for lag_s in lags_s:
        measured = node.second(ok=1, lag_s=lag_s)
    assert ("event-loop" in hurting(measured)) is hurts
