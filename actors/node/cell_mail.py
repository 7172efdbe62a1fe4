"""What other cells say, in the order in which they and those who tell of them mean it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

MOST_EARLY: Final = 10_000
"""Messages that wait at most, the newest; ours: far more than cells send each other until the supervisor has told of them."""


class CellMail:
    """Which mail of other cells is read now.

    The supervisor tells cells one after the other who runs, nodes learn of each other's cells from their presence, and mail takes
    ways of its own: a cell may hear from one that it has not been told of, and could not answer. Such mail waits. What an
    incarnation has sent that has been replaced since is for nobody: whoever waited for the answer is gone, and what it says of
    itself is not true of its successor.

    Incarnations of a cell are alike and rise: numbers within a node, tuples of them between nodes.
    """

    def __init__(self) -> None:
        self._running: dict[str, Any] = {}
        self._early: deque[tuple[str, Any, object]] = deque(maxlen=MOST_EARLY)

    def is_due(self, cell: str, incarnation: Any, message: object) -> bool:
        """Whether the message is to be read now; one that is too early is kept."""
        known = self._running.get(cell)
        if known is None or incarnation > known:
            self._early.append((cell, incarnation, message))
            return False
        return bool(incarnation == known)

    def cells_changed(self, running: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
        """These other cells run, {name: incarnation}; gives (cell, message) of the mail that is due now."""
        self._running = dict(running)
        early, self._early = self._early, deque(maxlen=MOST_EARLY)
        for cell, incarnation, message in early:
            if self.is_due(cell, incarnation, message):
                yield cell, message
