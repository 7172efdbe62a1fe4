"""How long to wait before something that failed is tried again. Pure."""

from __future__ import annotations


class Backoff:
    """The first failure may be repaired at once; each further one in a row doubles the wait. Time is an argument."""

    def __init__(self, first_s: float = 0.25, longest_s: float = 30.0) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.failure_count = 0
        self._due_s = float("-inf")

    def failed(self, now_s: float) -> None:
        self.failure_count += 1
        doublings = min(self.failure_count - 2, 60)  # beyond, the float would overflow
        self._due_s = now_s + (0.0 if doublings < 0 else min(self._longest_s, self._first_s * 2.0**doublings))

    def succeeded(self) -> None:
        self.failure_count = 0
        self._due_s = float("-inf")

    def delay_s(self, now_s: float) -> float:
        return max(0.0, self._due_s - now_s)
