"""Counts what clients asked for and how it ended, the same way for every transport."""

from __future__ import annotations

from typing import Final

from mcp_gateway.transports.protocol.mcp.revisions import NEWEST, NEWEST_LEGACY, is_known_method
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.tallies import CounterTally, HistogramTally

_MORE_METHODS: Final = frozenset(
    {"notifications/initialized", "notifications/cancelled", "stream", "terminate", "message", "echo", "time"}
)

_Tallies = tuple[CounterTally, HistogramTally]
_as_labelled: dict[tuple[str, str, str, str], _Tallies] = {}
"""{(transport, method, backend, outcome): where it is counted}, as they are shown."""
_histograms: dict[tuple[str, str], HistogramTally] = {}
_gateway_time = HistogramTally(metrics.gateway_latency_seconds.labels("gateway"))
_upstream_time = HistogramTally(metrics.gateway_latency_seconds.labels("upstream"))


def method_label(method: str) -> str:
    """The method, if it is one that clients have; they may write any."""
    is_known = is_known_method(method, NEWEST) or is_known_method(method, NEWEST_LEGACY) or method in _MORE_METHODS
    return method if is_known else metrics.OTHER


def count_request(transport: str, method: str, backend: str, outcome: str, duration_s: float, upstream_s: float) -> None:
    """Count one request that has ended. Label objects are kept: looking one up costs more than counting.

    backend:    may be what the client has made up, as may the method.
    outcome:    "ok", "error" (the server's own), "client_gone", or the reason of a refusal.
    upstream_s: the part of duration_s that the server took.
    """
    counter, histogram = _as_labelled.get((transport, method, backend, outcome)) or _tallies(
        transport, method_label(method), metrics.known_backend(backend), outcome
    )
    counter.inc()
    histogram.observe(duration_s)
    _gateway_time.observe(max(0.0, duration_s - upstream_s))
    _upstream_time.observe(upstream_s)


def _tallies(transport: str, method: str, backend: str, outcome: str) -> _Tallies:
    """method and backend: as they are shown, so that what clients make up does not make many."""
    tallies = _as_labelled.get((transport, method, backend, outcome))
    if tallies is None:
        histogram = _histograms.get((method, backend))
        if histogram is None:
            histogram = _histograms[method, backend] = HistogramTally(metrics.request_duration_seconds.labels(method, backend))
        counter = CounterTally(metrics.requests_total.labels(transport, method, backend, outcome))
        tallies = _as_labelled[transport, method, backend, outcome] = counter, histogram
    return tallies
