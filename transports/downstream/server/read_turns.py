"""Decides how much of a connection is read before the others have their turn: few bytes where they hold many parts. Pure."""

from __future__ import annotations

from typing import Final

LEAST_BYTES: Final = 1_024
_FIRST_BYTES = 4_096
_PARTS = 64
"""That may stand in a turn, of a millisecond or two. Ours; bytes say little: empty fragments are six of them each."""


class ReadTurns:
    """byte_count: of the next turn. It is doubled while there are few parts in it, as for a message of megabytes.

    parts: frames of a WebSocket, chunks of a body: each costs as much to read, be it long or short.
    Source: slow start and multiplicative decrease, RFC 5681, section 3.1.
    """

    __slots__ = ("_least_bytes", "_most_bytes", "byte_count")

    def __init__(self, most_bytes: int, least_bytes: int = LEAST_BYTES) -> None:
        self._least_bytes = least_bytes
        self._most_bytes = most_bytes
        self.byte_count = max(least_bytes, _FIRST_BYTES)

    def took(self, part_count: int) -> None:
        """A turn is over that had so many parts."""
        wanted = self.byte_count * 2 if part_count <= _PARTS // 2 else self.byte_count * _PARTS // part_count
        self.byte_count = min(max(self._least_bytes, wanted), self._most_bytes)
