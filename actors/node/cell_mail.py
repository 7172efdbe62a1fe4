"""What other cells say, in the order in which they and those who tell of them mean it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from mcp_gateway.actors.messages.weight import weight_bytes
from mcp_gateway.transports.ports.shared_budget import SharedBudget

MOST_EARLY: Final = 10_000
"""Messages that wait at most, the newest; ours: far more than cells send each other until the supervisor has told of them."""

MOST_EARLY_BYTES: Final = 64 * 1024 * 1024
"""What they weigh together; ours: as much as one message between nodes may."""

_LARGEST_SHARE: Final = 0.5


@attrs.frozen
class _Early:
    cell: str
    incarnation: Any
    message: object
    weight_bytes: int


class CellMail:
    """Which mail of other cells is read now.

    The supervisor tells cells one after the other who runs, nodes learn of each other's cells from their presence, and mail takes
    ways of its own: a cell may hear from one that it has not been told of, and could not answer. Such mail waits. What an
    incarnation has sent that has been replaced since is for nobody: whoever waited for the answer is gone, and what it says of
    itself is not true of its successor.

    Incarnations of a cell are alike and rise: numbers within a node, tuples of them between nodes.

    most_bytes: of what waits, half of it of one cell; the oldest makes room.
    lost_count: messages that have made room, so far.
    """

    def __init__(self, most_bytes: int = MOST_EARLY_BYTES) -> None:
        self._running: dict[str, Any] = {}
        self._early: deque[_Early] = deque()
        self._bytes = SharedBudget(most_bytes, _LARGEST_SHARE)
        self.lost_count = 0

    def is_due(self, cell: str, incarnation: Any, message: object) -> bool:
        """Whether the message is to be read now; one that is too early is kept."""
        known = self._running.get(cell)
        if known is None or incarnation > known:
            self._keep(_Early(cell, incarnation, message, weight_bytes(message)))
            return False
        return bool(incarnation == known)

    def cells_changed(self, running: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
        """These other cells run, {name: incarnation}; gives (cell, message) of the mail that is due now."""
        self._running = dict(running)
        early, self._early = self._early, deque()
        for each in early:
            self._bytes.give_back(each.cell, each.weight_bytes)
        for each in early:
            if self.is_due(each.cell, each.incarnation, each.message):
                yield each.cell, each.message

    def _keep(self, mail: _Early) -> None:
        if mail.weight_bytes > self._bytes.largest_share:
            self.lost_count += 1
            return
        if len(self._early) == MOST_EARLY:
            self._lose(0)
        while not self._bytes.take(mail.cell, mail.weight_bytes):
            has_share = self._bytes.held_by(mail.cell) + mail.weight_bytes > self._bytes.largest_share
            self._lose(next(place for place, each in enumerate(self._early) if not has_share or each.cell == mail.cell))
        self._early.append(mail)

    def _lose(self, place: int) -> None:
        lost = self._early[place]
        del self._early[place]
        self._bytes.give_back(lost.cell, lost.weight_bytes)
        self.lost_count += 1
