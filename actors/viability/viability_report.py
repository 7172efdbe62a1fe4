"""What the viability monitor knows, as JSON-able values for the dashboard and `mcp-gateway status`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .algedonic import AlgedonicSense
from .five_systems import SystemState, status_of
from .sensations import BackendSense, Measurement


def short_report(sense: AlgedonicSense, systems: Iterable[SystemState], to_ms: Callable[[float], int]) -> dict[str, Any]:
    """{"status", "pain", "aches", "systems"}. to_ms: turns a time of the monotonic clock into milliseconds since the epoch."""
    aches = sense.aches
    return {
        "status": status_of(sense.pain, is_emergency=any(ache.is_emergency for ache in aches)),
        "pain": round(sense.pain, 3),
        "aches": [
            {
                "source": ache.source,
                "level": round(ache.level, 3),
                "felt": round(ache.felt, 3),
                "reason": ache.text,
                "since": to_ms(ache.since_s),
                "is_emergency": ache.is_emergency,
            }
            for ache in aches
        ],
        "systems": [
            {
                "key": system.key,
                "name": system.name,
                "task": system.task,
                "status": system.status,
                "variety_in_per_s": system.variety_in_per_s,
                "variety_out_per_s": system.variety_out_per_s,
                "attenuation": round(system.attenuation, 4),
                "facts": dict(system.facts),
                "ache": system.ache,
            }
            for system in systems
        ],
    }


def backend_report(measurement: Measurement, senses: Mapping[str, BackendSense]) -> dict[str, Any]:
    """{backend: its rates, latency, pool and the newest measurements}; durations in seconds."""
    report: dict[str, Any] = {}
    for name, measure in measurement.backends.items():
        series = list(senses[name].series)
        report[name] = {
            "requests_per_s": round(measure.flow.requests_per_s, 2),
            "fault_share": round(measure.flow.fault_share, 4),
            "p50_s": _rounded(measure.flow.p50_s),
            "p95_s": _rounded(measure.flow.p95_s),
            "usual_p95_s": _rounded(measure.usual_p95_s),
            "drift": round(measure.drift, 2),
            "pool_use": round(measure.pool_use, 4),
            "pool_full_in_s": _rounded(measure.forecast.limit_in_s),
            "series": {
                "requests_per_s": [round(point[0], 2) for point in series],
                "p95_s": [_rounded(point[1]) for point in series],
                "fault_share": [round(point[2], 4) for point in series],
                "pool_use": [round(point[3], 4) for point in series],
            },
        }
    return report


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)
