"""From vital signs to feelings: how bad errors, latency, saturation, connections, restarts and backpressure are, 0 to 1. Pure.

The scales are ours. They are perceptual: the step from nothing to a little is felt more than the step from much to more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

import attrs

from .algedonic import ONSET, Feeling
from .trends import Baseline, Forecast, Trend
from .vital_signs import FEWEST_REQUESTS, BackendFlow, BackendVitals, VitalSigns, backend_flow

WINDOW_S = 10.0
"""Errors and latency are judged over that long."""

RESTARTS_WINDOW_S = 60.0
DISTRUST_S = 60.0
"""A tool that has changed hurts for that long; whether it is served since is no feeling any more, but a setting."""

SERIES_LENGTH = 120
"""Measurements that are kept of each backend for people to look at."""

_FASTEST_THAT_HURTS_S = 0.05
_BUSY_FROM = 0.8
_QUEUE_SAMPLES = 3
_LAG_SAMPLES = 5
"""A single late timer is seen in up to three: `event_loop_lag_seconds` is the worst of two seconds."""

_STALL_S = 0.5
_MOST_NOTES = 1_000


@attrs.define
class BackendSense:
    """What is remembered of one backend: its usual latency, where its pool is heading, and its newest measurements.

    series: (requests per second, 95th percentile in seconds or None, share of faults, use of the pool), oldest first.
    """

    baseline: Baseline = attrs.field(factory=Baseline)
    pool_trend: Trend = attrs.field(factory=Trend)
    series: deque[tuple[float, float | None, float, float]] = attrs.field(factory=lambda: deque(maxlen=SERIES_LENGTH))


@attrs.frozen(kw_only=True)
class BackendMeasure:
    """One backend as of now: its flow over the window, how many times the usual its latency is, its pool and where that leads."""

    flow: BackendFlow
    drift: float
    usual_p95_s: float | None
    pool_use: float
    forecast: Forecast
    replicas: int
    replicas_down: int


@attrs.frozen(kw_only=True)
class Measurement:
    """Everything that one sample of the node tells. elapsed_s: how much time the rates are taken over."""

    signs: VitalSigns
    before: VitalSigns
    elapsed_s: float
    backends: Mapping[str, BackendMeasure]
    feelings: Mapping[str, Feeling]


class Sensations:
    """Keeps the last seconds of vital signs and turns each new one into feelings by source ("errors/files", "restarts")."""

    def __init__(self) -> None:
        self._window: deque[VitalSigns] = deque()
        self._restarts: deque[tuple[float, str]] = deque(maxlen=_MOST_NOTES)
        self._backpressure: deque[tuple[float, str]] = deque(maxlen=_MOST_NOTES)
        self._changed_tools: deque[tuple[float, str, str]] = deque(maxlen=_MOST_NOTES)
        self._escalated_s = -math.inf
        self.backends: dict[str, BackendSense] = {}

    # ---- what is told by events rather than by counters: a counter's reader may itself have been restarted

    def note_restart(self, child: str, at_s: float) -> None:
        self._restarts.append((at_s, child))

    def note_backpressure(self, transport: str, at_s: float) -> None:
        self._backpressure.append((at_s, transport))

    def note_changed_tool(self, backend: str, tool: str, at_s: float) -> None:
        self._changed_tools.append((at_s, backend, tool))

    def note_escalation(self, at_s: float) -> None:
        self._escalated_s = at_s

    # ---- measuring

    def measure(self, signs: VitalSigns, connection_limits: Mapping[str, int]) -> Measurement:
        """Take in one sample. connection_limits: {transport: connections that the node takes at most}."""
        now_s = signs.at_s
        self._window.append(signs)
        while len(self._window) > 2 and self._window[1].at_s <= now_s - WINDOW_S:
            self._window.popleft()
        before = self._window[0]
        elapsed_s = max(now_s - before.at_s, 0.001)
        measures = {name: self._measure_backend(name, before, signs, elapsed_s) for name in signs.backends}
        for name in [name for name in self.backends if name not in signs.backends]:
            del self.backends[name]
        feelings: dict[str, Feeling] = {}
        for name, measure in measures.items():
            feelings[f"errors/{name}"] = errors(measure.flow)
            feelings[f"latency/{name}"] = latency(measure.flow, measure.drift)
            feelings[f"saturation/{name}"] = saturation(measure.flow, *self._sustained(name))
            feelings[f"connections/{name}"] = connections(signs.backends[name])
        for transport, limit in connection_limits.items():
            feelings[f"saturation/{transport}"] = crowding(signs.connections.get(transport, 0.0), limit)
        for transport in {*signs.lost, *(transport for _, transport in self._backpressure)}:
            feelings[f"backpressure/{transport}"] = self._backpressured(transport, before, signs)
        for backend in {backend for _, backend, _ in self._changed_tools}:
            feelings[f"tools/{backend}"] = self._distrusted(backend, now_s)
        feelings["restarts"] = self._restarted(now_s)
        feelings["event-loop"] = loop_lag(self._lasting_lag_s())
        feelings["viability"] = self._viability(signs, now_s)
        return Measurement(signs=signs, before=before, elapsed_s=elapsed_s, backends=measures, feelings=feelings)

    def _measure_backend(self, name: str, before: VitalSigns, signs: VitalSigns, elapsed_s: float) -> BackendMeasure:
        sense = self.backends.setdefault(name, BackendSense())
        vitals = signs.backends[name]
        flow = backend_flow(before.backends.get(name, vitals), vitals, elapsed_s)
        last = self._window[-2] if len(self._window) > 1 else signs
        newest = backend_flow(last.backends.get(name, vitals), vitals, max(signs.at_s - last.at_s, 0.001))
        use = pool_use(vitals)
        drift = sense.baseline.drift(flow.slow_s) if flow.slow_s is not None else 1.0
        is_usual = latency(flow, drift).level < ONSET and flow.fault_share < 0.1
        if flow.slow_s is not None and is_usual:
            sense.baseline.learn(flow.slow_s, signs.at_s)
        sense.pool_trend.add(use, signs.at_s)
        sense.series.append((newest.requests_per_s, newest.p95_s, newest.fault_share, use))
        return BackendMeasure(
            flow=flow,
            drift=drift,
            usual_p95_s=sense.baseline.value,
            pool_use=use,
            forecast=sense.pool_trend.forecast(1.0),
            replicas=len(vitals.replicas),
            replicas_down=len(down_replicas(vitals)),
        )

    def _sustained(self, backend: str) -> tuple[float, float]:
        """(use of the pool, calls waiting per connection) that held throughout the last samples: a queue may come and go."""
        newest = [signs.backends.get(backend) for signs in list(self._window)[-_QUEUE_SAMPLES:]]
        known = [vitals for vitals in newest if vitals is not None]
        if len(known) < _QUEUE_SAMPLES:
            return 0.0, 0.0
        return min(map(pool_use, known)), min(vitals.waiting / max(1.0, vitals.leased) for vitals in known)

    def _lasting_lag_s(self) -> float:
        """How late the event loop was throughout the last samples. A stall hurts at once; a shared core is late now and then."""
        newest = [signs.loop_lag_s for signs in list(self._window)[-_LAG_SAMPLES:]]
        if newest[-1] >= _STALL_S:
            return newest[-1]
        return min(newest) if len(newest) == _LAG_SAMPLES else 0.0

    def _restarted(self, now_s: float) -> Feeling:
        recent = [child for at_s, child in self._restarts if now_s - at_s <= RESTARTS_WINDOW_S]
        if not recent:
            return Feeling(level=0.0)
        text = f"{_times(len(recent), 'restart')} within a minute, the last of {recent[-1]}"
        return Feeling(level=1.0 - 0.7 ** len(recent), text=text)

    def _distrusted(self, backend: str, now_s: float) -> Feeling:
        tools = [tool for at_s, name, tool in self._changed_tools if name == backend and now_s - at_s <= DISTRUST_S]
        if not tools:
            return Feeling(level=0.0)
        return Feeling(level=0.6, text=f"{_times(len(set(tools)), 'tool')} not what was approved, the last {tools[-1][:100]!r}")

    def _backpressured(self, transport: str, before: VitalSigns, signs: VitalSigns) -> Feeling:
        lost = signs.lost.get(transport, 0.0) - before.lost.get(transport, 0.0)
        if lost > 0:
            return Feeling(level=1.0, text=f"{_times(round(lost), 'event')} lost to slow clients of {transport}")
        slow = sum(1 for at_s, name in self._backpressure if name == transport and signs.at_s - at_s <= WINDOW_S)
        return Feeling(level=_within(1.0 - 0.7**slow), text=f"{_times(slow, 'client')} of {transport} read too slowly")

    def _viability(self, signs: VitalSigns, now_s: float) -> Feeling:
        """Whether the node serves at all: what no level in between may filter."""
        judged = [vitals for vitals in signs.backends.values() if vitals.replicas]
        if judged and all(len(down_replicas(vitals)) == len(vitals.replicas) for vitals in judged):
            return Feeling(level=1.0, text="no replica of any backend can take a request", is_emergency=True)
        if now_s - self._escalated_s <= WINDOW_S:
            return Feeling(level=1.0, text="a supervisor has given up", is_emergency=True)
        return Feeling(level=0.0)


# ---- the scales


def errors(flow: BackendFlow) -> Feeling:
    """One fault in ten is felt, all of them are the worst; a single one of few is not yet a share."""
    share = flow.fault_share * min(1.0, flow.faults / FEWEST_REQUESTS)
    return Feeling(level=_within(math.sqrt(share)), text=f"{flow.fault_share:.0%} of the requests fail")


def latency(flow: BackendFlow, drift: float) -> Feeling:
    """Three times the usual is felt, 64 times is the worst. What is fast hurts nobody, however much slower it is than before."""
    if flow.slow_s is None or flow.slow_s < _FASTEST_THAT_HURTS_S or drift <= 1.0:
        return Feeling(level=0.0)
    return Feeling(
        level=_within(math.log2(drift) / 6.0), text=f"slow calls take {flow.slow_s:.3g} s, {drift:.3g} times the usual"
    )


def saturation(flow: BackendFlow, use: float, queue: float) -> Feeling:
    """A full pool is half the pain; calls that wait and wait are more, calls that are refused the worst.

    use: of the pool, 0 to 1. queue: calls that wait for each connection.
    """
    if flow.exhausted > 0:
        return Feeling(level=1.0, text=f"{_times(round(flow.exhausted), 'call')} got no connection in time")
    if queue > 0:
        return Feeling(level=_within(0.5 + 0.5 * queue), text=f"{queue:.1f} calls wait for each connection")
    return Feeling(level=_within((use - _BUSY_FROM) / (1.0 - _BUSY_FROM) * 0.5), text=f"{use:.0%} of the connections are in use")


def connections(vitals: BackendVitals) -> Feeling:
    """The share of replicas that take no traffic; one that fails its first probes counts a third."""
    if not vitals.replicas:
        return Feeling(level=0.0)
    down = down_replicas(vitals)
    failing = [replica for replica, health in vitals.replicas.items() if health == 1.0 and replica not in down]
    level = (len(down) + len(failing) / 3.0) / len(vitals.replicas)
    if down:
        text = f"{len(down)} of {_times(len(vitals.replicas), 'replica')} down"
    else:
        text = f"{_times(len(failing), 'replica')} failing probes"
    return Feeling(level=_within(level), text=text)


def crowding(count: float, limit: int) -> Feeling:
    """Clients of a transport against the most that it takes; full means that others are refused."""
    use = count / limit
    return Feeling(level=_within((use - _BUSY_FROM) / (1.0 - _BUSY_FROM)), text=f"{count:.0f} of {limit} connections are taken")


def loop_lag(lag_s: float) -> Feeling:
    """How late the event loop is, of the latest cell; a second is the worst."""
    return Feeling(level=_within(math.sqrt(lag_s)) if lag_s >= 0.05 else 0.0, text=f"the event loop is {lag_s:.2g} s late")


def pool_use(vitals: BackendVitals) -> float:
    total = vitals.leased + vitals.idle
    return vitals.leased / total if total > 0 else 0.0


def down_replicas(vitals: BackendVitals) -> set[str]:
    """Replicas that take no traffic: ejected, or with an open circuit."""
    return {replica for replica, health in vitals.replicas.items() if health == 0.0 or replica in vitals.open}


def _within(level: float) -> float:
    return min(1.0, max(0.0, level))


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
