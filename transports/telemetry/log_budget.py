"""How much of what a server says may reach the log. Pure."""

from __future__ import annotations


class LogBudget:
    """At most so many lines in a period; the first one of the next period tells how many were left out. Time is an argument."""

    def __init__(self, lines: int = 50, period_s: float = 10.0) -> None:
        self._lines = lines
        self._period_s = period_s
        self._began_s = float("-inf")
        self._count = 0
        self._left_out = 0

    def take(self, now_s: float) -> int | None:
        """None: say nothing. Otherwise say it, and how many lines were left out before."""
        if now_s - self._began_s >= self._period_s:
            self._began_s, self._count = now_s, 0
        if self._count >= self._lines:
            self._left_out += 1
            return None
        self._count += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
