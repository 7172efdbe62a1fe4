"""Counts what clients asked for and how it ended, the same way for every transport."""

from __future__ import annotations

from typing import Final

from mcp_gateway.transports.protocol.mcp.revisions import NEWEST, NEWEST_LEGACY, is_known_method
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.tallies import CounterTally, HistogramTally

_MORE_METHODS: Final = frozenset(
    {"notifications/initialized", "notifications/cancelled", "stream", "terminate", "message", "echo", "time"}
)

_counters: dict[tuple[str, str, str, str], CounterTally] = {}
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
    method, backend = method_label(method), metrics.known_backend(backend)
    counter = _counters.get((transport, method, backend, outcome))
    if counter is None:
        counter = CounterTally(metrics.requests_total.labels(transport, method, backend, outcome))
        _counters[transport, method, backend, outcome] = counter
    counter.inc()
    histogram = _histograms.get((method, backend))
    if histogram is None:
        histogram = HistogramTally(metrics.request_duration_seconds.labels(method, backend))
        _histograms[method, backend] = histogram
    histogram.observe(duration_s)
    _gateway_time.observe(max(0.0, duration_s - upstream_s))
    _upstream_time.observe(upstream_s)
