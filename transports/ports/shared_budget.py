"""Something of which there is only so much (connections, bytes, sessions), and of which no one holder may have more than a share.

Pure.
"""

from __future__ import annotations

import math
from typing import Final

_SMALLEST_SHARE: Final = 4
"""One holder may always have so many, or all where there are fewer: of a limit of 4, a quarter would be a limit of 1."""


class SharedBudget:
    """Who holds how much of it; what does not fit is not taken.

    limit:         how much there is in all.
    largest_share: of `limit`, what one holder may have: more than 0, at most 1.
    """

    __slots__ = ("_by_holder", "held", "largest_share", "limit")

    def __init__(self, limit: int, largest_share: float) -> None:
        self.limit = limit
        self.largest_share = min(limit, max(math.ceil(limit * largest_share), _SMALLEST_SHARE))
        self.held = 0
        self._by_holder: dict[str, int] = {}

    def held_by(self, holder: str) -> int:
        """What one holder has now."""
        return self._by_holder.get(holder, 0)

    def has_room(self, holder: str, amount: int = 1) -> bool:
        """Whether there is so much left, in all and for this holder."""
        return self.held + amount <= self.limit and self.held_by(holder) + amount <= self.largest_share

    def take(self, holder: str, amount: int = 1) -> bool:
        """Hold so much more; False, and nothing is held, where that would be too much."""
        if not self.has_room(holder, amount):
            return False
        self.held += amount
        self._by_holder[holder] = self.held_by(holder) + amount
        return True

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Hold so much less. Raises: ValueError for more than the holder has."""
        left = self.held_by(holder) - amount
        if left < 0:
            raise ValueError(f"{amount} given back of {self.held_by(holder)}")
        self.held -= amount
        if left:
            self._by_holder[holder] = left
        else:
            self._by_holder.pop(holder, None)
