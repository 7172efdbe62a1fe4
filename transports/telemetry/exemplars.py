"""The newest trace of each bucket of request durations, so that a slow bucket leads to a request that was slow."""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import Any

from prometheus_client.samples import Exemplar, Sample

from .metrics import BUCKETS

_MOST = 2_000


class Exemplars:
    """One exemplar for each method, backend and bucket, of this process. Only requests with a trace context leave one."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._newest: dict[tuple[str, str, int], tuple[str, float, float]] = {}

    def note(self, method: str, backend: str, duration_s: float, trace_id: str) -> None:
        key = (method, backend, bisect_left(self._bounds, duration_s))
        if key in self._newest or len(self._newest) < _MOST:
            self._newest[key] = (trace_id, duration_s, time.time())

    def beside(self, sample: Sample) -> Sample:
        """The sample with its exemplar, if it is a bucket that has one."""
        labels = sample.labels
        if "le" not in labels:
            return sample
        bucket = bisect_left(self._bounds, float(labels["le"]))
        newest: Any = self._newest.get((labels["method"], labels["backend"], bucket))
        if newest is None:
            return sample
        trace_id, value, at_s = newest
        return sample._replace(exemplar=Exemplar({"trace_id": trace_id}, value, at_s))


EXEMPLARS = Exemplars(BUCKETS)
"""Those of this process."""
