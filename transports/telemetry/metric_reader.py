"""Reads the metrics of the whole node: from the files that its processes share, or from this process where it is alone."""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Sample

from .exemplars import EXEMPLARS

_OURS = "mcp_gateway_"
_TRIES = 5
_PAUSE_S = 0.01

READERS: Final = ThreadPoolExecutor(2, "metrics")
"""Threads to read in. Of their own: names that are looked up in vain may hold every thread of a loop's executor for long."""


class MetricsUnreadable(Exception):
    """The files that the processes of the node share could not be read, several times."""


class _Collector(Protocol):
    def collect(self) -> Iterable[Metric]: ...


def read_samples() -> list[Sample]:
    """Every sample of the gateway's own metrics, of all processes of the node, summed up or chosen as each metric says.

    Blocks: for a thread. Raises: MetricsUnreadable.
    """
    return [sample for metric in _shown() if metric.name.startswith(_OURS) for sample in metric.samples]


def exposition(accept: str) -> tuple[bytes, str]:
    """(body, content type) of a scrape; OpenMetrics with exemplars where the scraper takes it.

    accept: the scraper's `Accept` header. Source: OpenMetrics 1.0, "Protocol Negotiation".
    Blocks: for a thread. Raises: MetricsUnreadable.
    """
    collected = _Collected(_shown())
    if "application/openmetrics-text" not in accept:
        return generate_latest(collected), CONTENT_TYPE_LATEST
    return generate_openmetrics(_WithExemplars(collected)), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]


def _shown() -> list[Metric]:
    """What there is, less the gauges of what exists no more, see `metrics.forget`."""
    collected = _collect()
    for metric in collected:
        if metric.type == "gauge":
            metric.samples = [sample for sample in metric.samples if not math.isnan(sample.value)]
    return collected


def _collect() -> list[Metric]:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return list(REGISTRY.collect())
    for _ in range(_TRIES):
        try:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return list(registry.collect())
        except (OSError, ValueError, RuntimeError, struct.error) as error:  # a file that is just being made, or put away
            last = error
            time.sleep(_PAUSE_S)
    raise MetricsUnreadable(f"the metrics of the node cannot be read: {last!r}") from last


class _Collected:
    """What has been collected already, for who wants to collect it."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class _WithExemplars:
    """Puts this cell's newest exemplars beside the buckets that the whole node has filled: the shared files hold none."""

    def __init__(self, source: _Collector) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        for metric in self._source.collect():
            if metric.name == "mcp_gateway_request_duration_seconds":
                metric.samples = [EXEMPLARS.beside(sample) for sample in metric.samples]
            yield metric
