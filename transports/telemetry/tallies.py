"""What is counted with every request, kept in plain numbers and written to the metrics some times a second, and before a scrape.

A write to the files that the processes of a node share takes 2 us, and a request makes nine.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Final

from prometheus_client import Counter, Histogram

WRITE_S: Final = 0.2
"""How long counts may wait. A process that is killed takes them along."""


class CounterTally:
    """Counts for a counter whose labels are set. Belongs to the event loop."""

    __slots__ = ("_count", "_counter")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._count = 0

    def inc(self) -> None:
        self._count += 1
        if self._count == 1:
            _await_write(self)

    def write(self) -> None:
        self._counter.inc(self._count)
        self._count = 0


class HistogramTally:
    """Observes for a histogram whose labels are set. Belongs to the event loop."""

    __slots__ = ("_bounds", "_counts", "_has_some", "_histogram", "_sum")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds: list[float] = histogram._upper_bounds
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._has_some = False

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value
        if not self._has_some:
            self._has_some = True
            _await_write(self)

    def write(self) -> None:
        """As many `observe` at once: `tests/transports/telemetry/test_tallies.py` fails when prometheus-client changes."""
        for bucket, count in zip(self._histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        self._histogram._sum.inc(self._sum)
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._has_some = False


_unwritten: list[CounterTally | HistogramTally] = []
_awaiting: asyncio.AbstractEventLoop | None = None
"""The loop that will write; another one may run by the time that something is counted again."""


def write_tallies() -> None:
    """Show everything that was counted; from the event loop, or where none runs."""
    global _awaiting
    _awaiting = None
    unwritten = _unwritten.copy()
    _unwritten.clear()
    for tally in unwritten:
        tally.write()


def _await_write(tally: CounterTally | HistogramTally) -> None:
    global _awaiting
    _unwritten.append(tally)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # nobody would write later
        write_tallies()
        return
    if loop is not _awaiting:
        _awaiting = loop
        loop.call_later(WRITE_S, write_tallies)
