"""Holds clients to `[limits]`, on every transport: who asks too often is told when to come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .token_bucket import TokenBuckets

_TELL_S = 1.0

Publish = Callable[[str, Mapping[str, Any]], None]


class RequestLimiter:
    """Counts the requests of each client; what is promised for the node is shared out among its cells.

    publish: tells the bus of attenuation, at most once in _TELL_S for all clients together.
    """

    def __init__(self, settings: Settings, publish: Publish) -> None:
        limits, cell_count = settings.limits, settings.gateway.cell_count
        self._sources = limits.key_sources
        self._publish = publish
        self._buckets: TokenBuckets | None = None
        if limits.requests_per_second > 0:
            burst = limits.burst or limits.requests_per_second
            self._buckets = TokenBuckets(limits.requests_per_second / cell_count, max(1.0, burst / cell_count))
        self._refused: dict[str, int] = {}
        self._told_s = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether there is a limit at all: without one nobody need look up a client's keys."""
        return self._buckets is not None

    def admit(self, keys: Mapping[str, str], request_id: bytes | None = None) -> None:
        """Count one request of the client with these keys ({source: value}, as routes hash on).

        Raises: Refused with rate_limited.
        """
        if self._buckets is None:
            return
        source = next((source for source in self._sources if keys.get(source)), "ip")
        now_s = time.monotonic()
        wait_s = self._buckets.take(f"{source}:{keys.get(source, '')}", now_s)
        if not wait_s:
            return
        metrics.rate_limited_total.labels(source).inc()
        self._refused[source] = self._refused.get(source, 0) + 1
        if now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            refused, self._refused = self._refused, {}
            self._publish("vsm.variety.attenuated", {"refused": refused})
        raise Refused("rate_limited", "too many requests; see retry_after", request_id=request_id, retry_after_s=round(wait_s, 3))
