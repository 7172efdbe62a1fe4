"""What the node's metrics say at one moment, and what happened between two of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import attrs

from mcp_gateway.transports.protocol.mcp.refusals import FAULTS

FEWEST_REQUESTS = 3
"""One or two of anything are an accident, not the state of a backend."""

ROUTING_FAULTS = frozenset({"no_backend", "circuit_open", "draining"})
_OPEN_ENDED = frozenset({"stream", "subscriptions/listen"})
"""Methods whose duration says how long a client stayed, not how long it waited."""

_PREFIX = "mcp_gateway_"
_CIRCUIT_OPEN = 2.0


class Sample(Protocol):
    """One line of an exposition; `prometheus_client.samples.Sample` is one."""

    name: str
    labels: Mapping[str, str]
    value: float


@attrs.define
class BackendVitals:
    """One backend, all replicas and cells together. Counters since the start of the node; the rest as of now.

    buckets:  {upper bound in seconds: requests that took at most as long}, cumulative.
    replicas: {replica: 2 healthy, 1 degraded, 0 unhealthy}.
    open:     replicas with an open circuit.
    """

    outcomes: dict[str, float] = attrs.field(factory=dict)
    buckets: dict[float, float] = attrs.field(factory=dict)
    leased: float = 0.0
    idle: float = 0.0
    waiting: float = 0.0
    exhausted: float = 0.0
    replicas: dict[str, float] = attrs.field(factory=dict)
    open: set[str] = attrs.field(factory=set)


@attrs.define
class VitalSigns:
    """The whole node at one moment. Counters are since its start."""

    at_s: float
    backends: dict[str, BackendVitals] = attrs.field(factory=dict)
    outcomes: dict[str, float] = attrs.field(factory=dict)
    connections: dict[str, float] = attrs.field(factory=dict)
    sessions: dict[str, float] = attrs.field(factory=dict)
    health: dict[str, float] = attrs.field(factory=dict)
    restarts: dict[str, float] = attrs.field(factory=dict)
    published: float = 0.0
    delivered: float = 0.0
    lost: dict[str, float] = attrs.field(factory=dict)
    rate_limited: float = 0.0
    signals: float = 0.0
    loop_lag_s: float = 0.0


def vital_signs(
    samples: Iterable[Sample], backend_names: Iterable[str], replica_backends: Mapping[str, str], at_s: float
) -> VitalSigns:
    """Read an exposition. replica_backends: {replica: backend}, because circuits are labelled by route and replica."""
    signs = VitalSigns(at_s=at_s, backends={name: BackendVitals() for name in backend_names})
    for sample in samples:
        if not sample.name.startswith(_PREFIX) or not sample.value:
            _note_zero(signs, sample)
            continue
        name, labels, value = sample.name[len(_PREFIX) :], sample.labels, sample.value
        backend = signs.backends.get(labels.get("backend", ""))
        if name == "requests_total":
            _add(signs.outcomes, labels["outcome"], value)
            if backend is not None:
                _add(backend.outcomes, labels["outcome"], value)
        elif name == "request_duration_seconds_bucket":
            if backend is not None and labels["method"] not in _OPEN_ENDED:
                backend.buckets[float(labels["le"])] = backend.buckets.get(float(labels["le"]), 0.0) + value
        elif name == "pool_connections" and backend is not None:
            state = labels["state"]
            if state in ("leased", "idle", "waiting"):
                setattr(backend, state, getattr(backend, state) + value)
        elif name == "pool_exhausted_total" and backend is not None:
            backend.exhausted += value
        elif name == "health_status":
            _note_health(signs, labels["component"], value)
        elif name == "circuit_state":
            owner = signs.backends.get(replica_backends.get(labels["replica"], ""))
            if owner is not None and value == _CIRCUIT_OPEN:
                owner.open.add(labels["replica"])
        else:
            _note(signs, name, labels, value)
    return signs


def _note(signs: VitalSigns, name: str, labels: Mapping[str, str], value: float) -> None:
    match name:
        case "downstream_connections":
            _add(signs.connections, labels["transport"], value)
        case "sessions":
            _add(signs.sessions, labels["revision"], value)
        case "restarts_total":
            _add(signs.restarts, labels["child"], value)
        case "events_published_total":
            signs.published += value
        case "events_delivered_total":
            signs.delivered += value
        case "events_lost_total":
            _add(signs.lost, labels["transport"], value)
        case "rate_limited_total":
            signs.rate_limited += value
        case "algedonic_signals_total":
            signs.signals += value
        case "event_loop_lag_seconds":
            signs.loop_lag_s = max(signs.loop_lag_s, value)


def _note_zero(signs: VitalSigns, sample: Sample) -> None:
    """Of all that is zero only health says something: unhealthy."""
    if sample.name == f"{_PREFIX}health_status":
        _note_health(signs, sample.labels["component"], sample.value)


def _note_health(signs: VitalSigns, component: str, value: float) -> None:
    signs.health[component] = value
    backend, slash, replica = component.partition("/")
    if slash and backend in signs.backends:
        signs.backends[backend].replicas[replica] = value


def _add(counts: dict[str, float], key: str, value: float) -> None:
    counts[key] = counts.get(key, 0.0) + value


# ---- between two moments


@attrs.frozen(kw_only=True)
class BackendFlow:
    """One backend in a stretch of time.

    fault_share: faults among the requests that ended, 0 to 1. p50_s, p95_s: None where none ended.
    slow_s:      what at least the slowest `FEWEST_REQUESTS` took, and one in twenty; None where so many have not ended.
    """

    requests_per_s: float
    requests: float
    faults: float
    fault_share: float
    p50_s: float | None
    p95_s: float | None
    slow_s: float | None
    exhausted: float


def backend_flow(earlier: BackendVitals, later: BackendVitals, elapsed_s: float) -> BackendFlow:
    """What one backend did between two moments. elapsed_s > 0."""
    outcomes = {key: max(0.0, value - earlier.outcomes.get(key, 0.0)) for key, value in later.outcomes.items()}
    requests = sum(outcomes.values())
    faults = sum(count for outcome, count in outcomes.items() if outcome in FAULTS)
    buckets = {bound: max(0.0, count - earlier.buckets.get(bound, 0.0)) for bound, count in later.buckets.items()}
    return BackendFlow(
        requests_per_s=requests / elapsed_s,
        requests=requests,
        faults=faults,
        fault_share=faults / requests if requests else 0.0,
        p50_s=quantile(buckets, 0.5),
        p95_s=quantile(buckets, 0.95),
        slow_s=_slow_s(buckets),
        exhausted=max(0.0, later.exhausted - earlier.exhausted),
    )


def _slow_s(buckets: Mapping[float, float]) -> float | None:
    ended = max(buckets.values(), default=0.0)
    if ended < FEWEST_REQUESTS:
        return None
    return quantile(buckets, min(0.95, 1.0 - (FEWEST_REQUESTS - 1) / ended))


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The value below which this share lies, within its bucket by straight line; None where there is nothing.

    buckets: {upper bound: count up to there}, cumulative, as in a histogram. Source: Prometheus, `histogram_quantile`.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    wanted = share * buckets[bounds[-1]]
    below, lower = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= wanted and count > below:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (wanted - below) / (count - below)
        below, lower = max(below, count), bound
    return lower
