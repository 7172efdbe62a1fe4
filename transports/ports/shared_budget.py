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
        held, own = self.held + amount, self._by_holder.get(holder, 0) + amount
        if held > self.limit or own > self.largest_share:
            return False
        self.held = held
        self._by_holder[holder] = own
        return True

    def give_back(self, holder: str, amount: int = 1) -> None:
        """Hold so much less. Raises: ValueError for more than the holder has."""
        own = self._by_holder.get(holder, 0)
        if own < amount:
            raise ValueError(f"{amount} given back of {own}")
        self.held -= amount
        if own > amount:
            self._by_holder[holder] = own - amount
        else:
            self._by_holder.pop(holder, None)
