"""The Viable System Model of a node as values: what its five systems do, how much variety each takes in and lets out. Pure.

Variety is measured as a flow: distinct things per second that a system must deal with, and those that are left when it has.
Source: Stafford Beer, "Diagnosing the System for Organizations"; what of the gateway is which system is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from .algedonic import Ache
from .sensations import Measurement
from .vital_signs import FAULTS, ROUTING_FAULTS, VitalSigns

STRAINED_FROM = 0.25
FAILING_FROM = 0.6

_CONTROL_FAULTS = frozenset({"pool_exhausted", "rate_limited", "too_many_connections"})
_POLICY_REFUSALS = frozenset({"unauthorized", "forbidden", "origin_forbidden", "too_large", "draining"})

_SYSTEMS_OF_SOURCE = {
    "errors": "S1",
    "latency": "S1",
    "connections": "S1",
    "backpressure": "S2",
    "saturation": "S3",
    "event-loop": "S3",
    "restarts": "S3",
    "viability": "S5",
}


@attrs.frozen(kw_only=True)
class SystemState:
    """One of the systems. status: "viable", "strained" or "failing".

    variety_in_per_s, variety_out_per_s: what it must deal with, and what is left of that for others.
    facts:                               {what: how much}, in the order to show them.
    """

    key: str
    name: str
    task: str
    status: str
    variety_in_per_s: float
    variety_out_per_s: float
    facts: Mapping[str, str]
    ache: str = ""

    @property
    def attenuation(self) -> float:
        """The share of variety that the system absorbs, 0 to 1."""
        if self.variety_in_per_s <= 0.0:
            return 0.0
        return min(1.0, max(0.0, 1.0 - self.variety_out_per_s / self.variety_in_per_s))


@attrs.frozen(kw_only=True)
class Policy:
    """What S5 stands for: how many backends and routes are configured, whether clients are limited, how many cells serve."""

    backends: int
    routes: int
    limits_clients: bool
    cells: int


def status_of(pain: float, *, is_emergency: bool = False) -> str:
    """How much pain is how bad."""
    if is_emergency or pain >= FAILING_FROM:
        return "failing"
    return "strained" if pain >= STRAINED_FROM else "viable"


def assess(
    measurement: Measurement, aches: Iterable[Ache], policy: Policy, *, probes_per_s: float, verdicts: int
) -> tuple[SystemState, ...]:
    """The five systems and the audit channel, in their order.

    verdicts: replicas that the audit has judged otherwise within the window.
    """
    signs, before, elapsed_s = measurement.signs, measurement.before, measurement.elapsed_s
    worst = _worst_aches(aches)
    ended = {outcome: _rate(count - before.outcomes.get(outcome, 0.0), elapsed_s) for outcome, count in signs.outcomes.items()}
    arriving = sum(ended.values())
    past_policy = arriving - sum(ended.get(outcome, 0.0) for outcome in _POLICY_REFUSALS)
    routed = past_policy - sum(ended.get(outcome, 0.0) for outcome in ROUTING_FAULTS - _POLICY_REFUSALS)
    admitted = routed - sum(ended.get(outcome, 0.0) for outcome in _CONTROL_FAULTS)
    served = admitted - sum(ended.get(outcome, 0.0) for outcome in FAULTS - ROUTING_FAULTS - _CONTROL_FAULTS - _POLICY_REFUSALS)
    limited = _rate(signs.rate_limited - before.rate_limited, elapsed_s)
    replicas = sum(measure.replicas for measure in measurement.backends.values())
    down = sum(measure.replicas_down for measure in measurement.backends.values())
    looked_at = (4 * len(measurement.backends) + len(signs.connections) + 3) / max(elapsed_s, 1.0)

    def system(key: str, name: str, task: str, flow: tuple[float, float], facts: Mapping[str, str]) -> SystemState:
        ache = worst.get(key)
        return SystemState(
            key=key,
            name=name,
            task=task,
            status=status_of(ache.felt, is_emergency=ache.is_emergency) if ache is not None else "viable",
            variety_in_per_s=round(max(0.0, flow[0]), 3),
            variety_out_per_s=round(max(0.0, min(flow)), 3),
            facts=facts,
            ache=f"{ache.source}: {ache.text}" if ache is not None else "",
        )

    return (
        system(
            "S1",
            "Operations",
            "transports and servers do the work",
            (admitted, served),
            {
                "requests": f"{arriving:.1f}/s",
                "replicas serving": f"{replicas - down} of {replicas}",
                "clients": f"{sum(signs.connections.values()):.0f}",
            },
        ),
        system(
            "S2",
            "Coordination",
            "router, ring and event bus keep operations out of each other's way",
            (past_policy, routed),
            {
                "not routed": f"{past_policy - routed:.1f}/s",
                "circuits open": f"{sum(len(backend.open) for backend in signs.backends.values())}",
                "events": f"{_rate(signs.published - before.published, elapsed_s):.1f}/s",
            },
        ),
        system(
            "S3",
            "Control",
            "pool and limits share out what there is",
            (routed, admitted),
            {
                "connections leased": f"{sum(backend.leased for backend in signs.backends.values()):.0f}",
                "calls waiting": f"{sum(backend.waiting for backend in signs.backends.values()):.0f}",
                "rate limited": f"{limited:.1f}/s",
            },
        ),
        system(
            "S3*",
            "Audit",
            "probes look past what operations say of themselves",
            (probes_per_s, verdicts / max(elapsed_s, 1.0)),
            {"probes": f"{probes_per_s:.1f}/s", "components well": _share_well(signs), "verdicts": f"{verdicts}"},
        ),
        system(
            "S4",
            "Intelligence",
            "trends say what comes",
            (looked_at, float(sum(1 for _ in _warnings(measurement))) / max(elapsed_s, 1.0)),
            _outlook(measurement),
        ),
        system(
            "S5",
            "Policy",
            "configuration and identity decide what the gateway is",
            (arriving, past_policy),
            {
                "backends": f"{policy.backends}",
                "routes": f"{policy.routes}",
                "client limits": "on" if policy.limits_clients else "off",
                "cells": f"{policy.cells}",
            },
        ),
    )


def _worst_aches(aches: Iterable[Ache]) -> dict[str, Ache]:
    """{system: the ache that is felt most}; `aches` come in that order."""
    worst: dict[str, Ache] = {}
    for ache in aches:
        key = _SYSTEMS_OF_SOURCE.get(ache.source.partition("/")[0])
        if key is not None:
            worst.setdefault(key, ache)
    return worst


def _outlook(measurement: Measurement) -> dict[str, str]:
    warnings = list(_warnings(measurement))
    drifts = [measure.drift for measure in measurement.backends.values()]
    return {
        "latency drift": f"{max(drifts, default=1.0):.1f} times",
        "pool full": next((text for kind, text in warnings if kind == "pool"), "not in sight"),
        "warnings": f"{len(warnings)}",
    }


def _warnings(measurement: Measurement) -> Iterable[tuple[str, str]]:
    """(kind, text) of what is not well yet to come: a pool that fills, a latency that drifts."""
    for name, measure in measurement.backends.items():
        if measure.forecast.limit_in_s is not None and measure.pool_use < 1.0:
            yield "pool", f"{name} in {measure.forecast.limit_in_s:.0f} s"
        if measure.drift >= 2.0:
            yield "latency", f"{name} at {measure.drift:.1f} times the usual"


def _share_well(signs: VitalSigns) -> str:
    well = sum(1 for value in signs.health.values() if value == 2.0)
    return f"{well} of {len(signs.health)}"


def _rate(count: float, elapsed_s: float) -> float:
    return max(0.0, count) / elapsed_s
