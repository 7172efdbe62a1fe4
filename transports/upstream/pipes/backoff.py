"""How long to wait before something that failed is tried again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_SPREAD: Final = 0.2


class Backoff:
    """The first failure may be repaired at once; each further one in a row doubles the wait. Time is an argument.

    chance: gives a number from 0 to 1, by which a wait is up to a fifth shorter: what failed together is not tried together.
    """

    def __init__(self, first_s: float = 0.25, longest_s: float = 30.0, chance: Callable[[], float] = lambda: 0.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._chance = chance
        self.failure_count = 0
        self._due_s = float("-inf")

    def failed(self, now_s: float) -> None:
        self.failure_count += 1
        doublings = min(self.failure_count - 2, 60)  # beyond, the float would overflow
        wait_s = 0.0 if doublings < 0 else min(self._longest_s, self._first_s * 2.0**doublings)
        self._due_s = now_s + wait_s * (1.0 - _SPREAD * self._chance())

    def succeeded(self) -> None:
        self.failure_count = 0
        self._due_s = float("-inf")

    def delay_s(self, now_s: float) -> float:
        return max(0.0, self._due_s - now_s)

    @property
    def is_worth_telling(self) -> bool:
        """Whether the failures have doubled since it was told of them last: the 1st, 2nd, 4th, 8th and so on."""
        return self.failure_count & (self.failure_count - 1) == 0
