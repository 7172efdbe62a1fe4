"""Patterns over names and targets, as routes and policies have them."""

from __future__ import annotations


class Wildcard:
    """A pattern in which `*` stands for any run of characters, "/" and none included, and everything else for itself.

    The parts between the stars are searched one after the other, each at its first place: that is enough, because taking an
    earlier place never rules out a later part. So there is no backtracking and no expression that a hostile target can slow down.
    """

    __slots__ = ("_first", "_last", "_middle", "literal_count", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        parts = pattern.split("*")
        self.literal_count = sum(map(len, parts))
        self._first = parts[0]
        self._middle = [part for part in parts[1:-1] if part]
        self._last = parts[-1] if len(parts) > 1 else None

    def matches(self, text: str) -> bool:
        if self._last is None:
            return text == self._first
        end = len(text) - len(self._last)
        position = len(self._first)
        if position > end or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            found = text.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True
