"""How many calls at once a server takes before they only wait for each other, found by how long they take. Pure."""

from __future__ import annotations

from typing import Final

LEAST: Final = 4
"""So many calls at once are always tried: of fewer nothing could be learned."""
_TOLERANCE: Final = 1.5
_SMOOTHING: Final = 0.2
_STEP: Final = 4.0
_LONG_COUNT: Final = 600
_RECENT_COUNT: Final = 10
_WARM_UP_COUNT: Final = 10
_STEEPEST: Final = 0.5


class _Mean:
    """An exponential moving average over about so many samples; of the first few, their plain mean."""

    __slots__ = ("_count", "_factor", "value")

    def __init__(self, count: int) -> None:
        self._factor = 2.0 / (count + 1)
        self._count = 0
        self.value = 0.0

    def add(self, sample: float) -> float:
        self._count += 1
        factor = 1.0 / self._count if self._count <= _WARM_UP_COUNT else self._factor
        self.value += (sample - self.value) * max(factor, self._factor)
        return self.value


class ConcurrencyLimit:
    """A limit between LEAST and a ceiling, where it begins: what was never busy was never slowed down.

    Calls that take longer than they did in the long run lower it, by at most half at a time and smoothed; those that take as long
    as ever raise it by a few. Where less than half of it is in use, the time that calls take says nothing of how many there are.
    Source: Netflix concurrency-limits, `Gradient2Limit`, with its constants.
    """

    __slots__ = ("_ceiling", "_limit", "_long", "_recent")

    def __init__(self, ceiling: int) -> None:
        self._ceiling = max(1, ceiling)
        self._limit = float(self._ceiling)
        self._long = _Mean(_LONG_COUNT)
        self._recent = _Mean(_RECENT_COUNT)

    @property
    def limit(self) -> int:
        return int(self._limit)

    def change_ceiling(self, ceiling: int) -> None:
        """Where it was at the ceiling it stays there."""
        was_at_ceiling = self._limit >= self._ceiling
        self._ceiling = max(1, ceiling)
        self._limit = float(self._ceiling) if was_at_ceiling else self._within(self._limit)

    def note(self, served_s: float, in_flight: int) -> int:
        """Take in how long one call took, and how many ran when it ended, itself included; gives the limit from now on."""
        self._recent.add(served_s)
        long_s = self._long.add(served_s)
        if served_s > 0 and long_s / served_s > 2.0:  # after a long time of overload: forget that sooner
            self._long.value *= 0.95
        if in_flight * 2 < self._limit or served_s <= 0:
            return self.limit
        gradient = max(_STEEPEST, min(1.0, _TOLERANCE * long_s / served_s))
        wanted = self._limit * gradient + _STEP
        self._limit = self._within(self._limit + (wanted - self._limit) * _SMOOTHING)
        return self.limit

    def expected_wait_s(self, waiting: int) -> float:
        """How long one more would wait behind so many, when calls go on taking what they took lately."""
        return (waiting + 1) * self._recent.value / max(1, self.limit)

    def _within(self, limit: float) -> float:
        return min(float(self._ceiling), max(float(min(LEAST, self._ceiling)), limit))
