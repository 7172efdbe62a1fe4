"""Backends that let everybody wait for nothing: the next questions to all of them wait for these only briefly. Pure."""

from __future__ import annotations

from typing import Final

FAN_OUT_S: Final = 5.0
"""Longest wait for one backend's part of a merged answer."""

LATE_FAN_OUT_S: Final = 0.5
"""The same for a backend that has just used up the time of such an answer, and is likely to do it again."""

LATE_FOR_S: Final = 15.0
"""After that it gets the full time again; by then the probes have found out what is wrong with it."""


class LateBackends:
    """Remembers who was late, until it answers or LATE_FOR_S have passed. The time is an argument."""

    def __init__(self) -> None:
        self._late_until_s: dict[str, float] = {}

    def patience_s(self, backend: str, now_s: float) -> float:
        """How long to wait for this backend's part."""
        return LATE_FAN_OUT_S if self._late_until_s.get(backend, 0.0) > now_s else FAN_OUT_S

    def was_late(self, backend: str, now_s: float) -> None:
        self._late_until_s[backend] = now_s + LATE_FOR_S

    def has_answered(self, backend: str) -> None:
        self._late_until_s.pop(backend, None)

    def keep_only(self, backends: set[str]) -> None:
        """Forget those that are no more."""
        self._late_until_s = {name: until_s for name, until_s in self._late_until_s.items() if name in backends}
