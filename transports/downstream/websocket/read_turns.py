"""Decides how much of a connection is read before the others have their turn: few bytes where they hold many frames. Pure."""

from __future__ import annotations

from typing import Final

LEAST_BYTES: Final = 1_024
MOST_BYTES: Final = 16_384
_FIRST_BYTES = 4_096
_FRAMES = 64
"""That may stand in a turn, of a millisecond or two. Ours; bytes say little: empty fragments are six of them each."""


class ReadTurns:
    """byte_count: of the next turn. It is doubled while there are few frames in it, as for a message of megabytes.

    Source: slow start and multiplicative decrease, RFC 5681, section 3.1.
    """

    __slots__ = ("byte_count",)

    def __init__(self) -> None:
        self.byte_count = _FIRST_BYTES

    def took(self, frame_count: int) -> None:
        """A turn is over that had so many frames."""
        wanted = self.byte_count * 2 if frame_count <= _FRAMES // 2 else self.byte_count * _FRAMES // frame_count
        self.byte_count = min(max(LEAST_BYTES, wanted), MOST_BYTES)
