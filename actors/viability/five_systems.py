"""The Viable System Model of a node as values: what its five systems do, how much variety each takes in and lets out. Pure.

Variety is measured as a flow: distinct things per second that a system must deal with, and those that are left when it has.
Source: Stafford Beer, "Diagnosing the System for Organizations"; what of the gateway is which system is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import attrs

from mcp_gateway.transports.protocol.mcp.refusals import FAULTS

from .algedonic import Ache
from .sensations import Measurement
from .vital_signs import ROUTING_FAULTS, VitalSigns

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
    look = _Look(measurement, policy, _traffic(measurement), probes_per_s, verdicts)
    worst = _worst_aches(aches)
    return tuple(_state_of(system, system.look_at(look), worst.get(system.key)) for system in SYSTEMS)


@attrs.frozen
class _Traffic:
    """Requests per second: those that arrive, and what each system has left of them for the next."""

    arriving: float
    past_policy: float
    routed: float
    admitted: float
    served: float


@attrs.frozen
class _Look:
    """What the systems are judged by; see `assess`."""

    measurement: Measurement
    policy: Policy
    traffic: _Traffic
    probes_per_s: float
    verdicts: int


@attrs.frozen
class _Found:
    """What a system takes in and lets out, per second, and what else there is to say of it."""

    variety_in_per_s: float
    variety_out_per_s: float
    facts: Mapping[str, str]


@attrs.frozen
class _System:
    key: str
    name: str
    task: str
    look_at: Callable[[_Look], _Found]


def _state_of(system: _System, found: _Found, ache: Ache | None) -> SystemState:
    return SystemState(
        key=system.key,
        name=system.name,
        task=system.task,
        status=status_of(ache.felt, is_emergency=ache.is_emergency) if ache is not None else "viable",
        variety_in_per_s=round(max(0.0, found.variety_in_per_s), 3),
        variety_out_per_s=round(max(0.0, min(found.variety_in_per_s, found.variety_out_per_s)), 3),
        facts=found.facts,
        ache=f"{ache.source}: {ache.text}" if ache is not None else "",
    )


def _traffic(measurement: Measurement) -> _Traffic:
    before = measurement.before.outcomes
    ended = {
        outcome: _rate(count - before.get(outcome, 0.0), measurement.elapsed_s)
        for outcome, count in measurement.signs.outcomes.items()
    }

    def ended_by(outcomes: Iterable[str]) -> float:
        return sum(ended.get(outcome, 0.0) for outcome in outcomes)

    arriving = sum(ended.values())
    past_policy = arriving - ended_by(_POLICY_REFUSALS)
    routed = past_policy - ended_by(ROUTING_FAULTS - _POLICY_REFUSALS)
    admitted = routed - ended_by(_CONTROL_FAULTS)
    served = admitted - ended_by(FAULTS - ROUTING_FAULTS - _CONTROL_FAULTS - _POLICY_REFUSALS)
    return _Traffic(arriving, past_policy, routed, admitted, served)


def _operations(look: _Look) -> _Found:
    replicas = sum(measure.replicas for measure in look.measurement.backends.values())
    down = sum(measure.replicas_down for measure in look.measurement.backends.values())
    facts = {
        "requests": f"{look.traffic.arriving:.1f}/s",
        "replicas serving": f"{replicas - down} of {replicas}",
        "clients": f"{sum(look.measurement.signs.connections.values()):.0f}",
    }
    return _Found(look.traffic.admitted, look.traffic.served, facts)


def _coordination(look: _Look) -> _Found:
    signs, before, elapsed_s = look.measurement.signs, look.measurement.before, look.measurement.elapsed_s
    facts = {
        "not routed": f"{look.traffic.past_policy - look.traffic.routed:.1f}/s",
        "circuits open": f"{sum(len(backend.open) for backend in signs.backends.values())}",
        "events": f"{_rate(signs.published - before.published, elapsed_s):.1f}/s",
    }
    return _Found(look.traffic.past_policy, look.traffic.routed, facts)


def _control(look: _Look) -> _Found:
    signs, before, elapsed_s = look.measurement.signs, look.measurement.before, look.measurement.elapsed_s
    facts = {
        "connections leased": f"{sum(backend.leased for backend in signs.backends.values()):.0f}",
        "calls waiting": f"{sum(backend.waiting for backend in signs.backends.values()):.0f}",
        "rate limited": f"{_rate(signs.rate_limited - before.rate_limited, elapsed_s):.1f}/s",
    }
    return _Found(look.traffic.routed, look.traffic.admitted, facts)


def _audit(look: _Look) -> _Found:
    facts = {
        "probes": f"{look.probes_per_s:.1f}/s",
        "components well": _share_well(look.measurement.signs),
        "verdicts": f"{look.verdicts}",
    }
    return _Found(look.probes_per_s, look.verdicts / max(look.measurement.elapsed_s, 1.0), facts)


def _intelligence(look: _Look) -> _Found:
    measurement, window_s = look.measurement, max(look.measurement.elapsed_s, 1.0)
    looked_at_count = 4 * len(measurement.backends) + len(measurement.signs.connections) + 3
    warning_count = sum(1 for _ in _warnings(measurement))
    return _Found(looked_at_count / window_s, warning_count / window_s, _outlook(measurement))


def _policy(look: _Look) -> _Found:
    facts = {
        "backends": f"{look.policy.backends}",
        "routes": f"{look.policy.routes}",
        "client limits": "on" if look.policy.limits_clients else "off",
        "cells": f"{look.policy.cells}",
    }
    return _Found(look.traffic.arriving, look.traffic.past_policy, facts)


SYSTEMS: Final = (
    _System("S1", "Operations", "transports and servers do the work", _operations),
    _System("S2", "Coordination", "router, ring and event bus keep operations out of each other's way", _coordination),
    _System("S3", "Control", "pool and limits share out what there is", _control),
    _System("S3*", "Audit", "probes look past what operations say of themselves", _audit),
    _System("S4", "Intelligence", "trends say what comes", _intelligence),
    _System("S5", "Policy", "configuration and identity decide what the gateway is", _policy),
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
