"""Where a measurement is heading: what is usual for it, and when it will meet its limit if it goes on like this. Pure."""

from __future__ import annotations

import math
from collections import deque

import attrs

_FIRST_VALUES = 30


class Baseline:
    """What is usual for a value: a mean that follows slowly, and is taught only while all is well.

    memory_s: time constant; the first values count fully, so that it is of use from the start.
    """

    __slots__ = ("_at_s", "_count", "_memory_s", "value")

    def __init__(self, memory_s: float = 300.0) -> None:
        self._memory_s = memory_s
        self._at_s: float | None = None
        self._count = 0
        self.value: float | None = None

    def learn(self, value: float, now_s: float) -> None:
        if self.value is None or self._at_s is None:
            self.value, self._at_s, self._count = value, now_s, 1
            return
        self._count += 1
        slow = 1.0 - math.exp(-max(0.0, now_s - self._at_s) / self._memory_s)
        weight = max(slow, 1.0 / self._count if self._count <= _FIRST_VALUES else 0.0)
        self._at_s = now_s
        self.value += (value - self.value) * weight

    def drift(self, value: float) -> float:
        """How many times the usual a value is; 1 while nothing is known."""
        return value / self.value if self.value else 1.0


@attrs.frozen(kw_only=True)
class Forecast:
    """slope_per_s: how fast the value rises. limit_in_s: when it reaches its limit; None where it does not head there."""

    slope_per_s: float
    limit_in_s: float | None


class Trend:
    """The newest values of a measurement and the straight line through them."""

    __slots__ = ("_points",)

    def __init__(self, length: int = 60) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=length)

    def add(self, value: float, now_s: float) -> None:
        self._points.append((now_s, value))

    def forecast(self, limit: float, *, horizon_s: float = 600.0) -> Forecast:
        """Where the line leads. A limit that is further away than the horizon is none: no line holds for so long."""
        count = len(self._points)
        if count < 5:
            return Forecast(slope_per_s=0.0, limit_in_s=None)
        mean_t = sum(at for at, _ in self._points) / count
        mean_v = sum(value for _, value in self._points) / count
        spread = sum((at - mean_t) ** 2 for at, _ in self._points)
        if spread <= 0.0:
            return Forecast(slope_per_s=0.0, limit_in_s=None)
        slope = sum((at - mean_t) * (value - mean_v) for at, value in self._points) / spread
        now_s, value = self._points[-1]
        if value >= limit:
            return Forecast(slope_per_s=slope, limit_in_s=0.0)
        # What the line says of now, not the last value, which is one point of a noisy many.
        fitted = mean_v + slope * (now_s - mean_t)
        if slope <= 1e-9:
            return Forecast(slope_per_s=slope, limit_in_s=None)
        left_s = max(0.0, (limit - fitted) / slope)
        return Forecast(slope_per_s=slope, limit_in_s=left_s if left_s <= horizon_s else None)
