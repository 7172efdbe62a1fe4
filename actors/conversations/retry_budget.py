"""How much of what a backend is asked may be asked again, after a server had got it and gave no answer. Pure."""

from __future__ import annotations

from typing import Final

RETRIES_PER_S: Final = 10.0
"""Always allowed: of little traffic a share would be nothing."""
RESERVE_S: Final = 10.0
"""For so long they may be saved up: what is cut off when a server dies comes at once."""


class RetryBudget:
    """A bucket of tokens: each answer puts a share of one in, time puts in some, each retry takes one out.

    What no server has seen is not counted: to send it elsewhere costs none of them anything. What was seen and failed makes an
    overloaded server slower with each retry, and its clients the more impatient.
    Source: Finagle, `RetryBudget` (percentCanRetry, minRetriesPerSec, ttl); Envoy manual, retry budgets.
    """

    __slots__ = ("_balance", "_counted_at_s", "_most", "share")

    def __init__(self, share: float, now_s: float) -> None:
        self.share = share
        self._most = RETRIES_PER_S * RESERVE_S if share else 0.0
        self._balance = self._most
        self._counted_at_s = now_s

    def note_answer(self) -> None:
        if self._balance < self._most:  # as a rule it is full
            self._balance = min(self._most, self._balance + self.share)

    def take(self, now_s: float) -> bool:
        """Whether one more retry is within the budget; it is paid for then."""
        if not self.share:
            return False
        self._balance = min(self._most, self._balance + RETRIES_PER_S * max(0.0, now_s - self._counted_at_s))
        self._counted_at_s = now_s
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        return True
