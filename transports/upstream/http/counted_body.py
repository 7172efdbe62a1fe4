"""A body of known length, read into the very bytes that are handed out: what is megabytes long is not copied.

The part that is wanted by itself begins and ends those bytes: what frames it is read beside them, or cut off their end.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import attrs

from mcp_gateway.transports.protocol.framing.pieces import Pieces


@attrs.frozen(kw_only=True)
class Frame:
    """What stands around the part of a body that is wanted by itself.

    before: bytes that stand before it, by what has come of the body first; 0 where that does not show.
    behind: bytes that stand behind it, by what stands before it and all the rest.
    """

    before: Callable[[bytes], int]
    behind: Callable[[bytes, memoryview], int]


UNFRAMED: Final = Frame(before=lambda begun: 0, behind=lambda before, rest: 0)


class CountedBody:
    """Has room for all of it, and is filled through `missing`, which is empty in the end."""

    def __init__(self, begun: bytes, length: int, frame: Frame) -> None:
        """begun: what has come of it, less than its length."""
        self._frame = frame
        framing = frame.before(begun)
        self._before = begun[:framing]
        self._rest = io.BytesIO(bytes(length - framing))
        self._room = self._rest.getbuffer()
        self._room[: len(begun) - framing] = memoryview(begun)[framing:]
        self.missing = self._room[len(begun) - framing :]

    def filled(self, byte_count: int) -> None:
        """So much more of it is there."""
        missing, self.missing = self.missing, self.missing[byte_count:]
        missing.release()

    def pieces(self) -> Pieces:
        """What stands before the part that is wanted, that part, and what stands behind it; one piece where nothing does."""
        behind_bytes = self._frame.behind(self._before, self._room)
        behind = bytes(self._room[len(self._room) - behind_bytes :])
        self.release()
        if behind:
            self._rest.truncate(len(self._rest.getbuffer()) - behind_bytes)
        # BytesIO gives its bytes away, and shortens them where they are.
        rest = self._rest.getvalue()
        return (self._before, rest, behind) if self._before or behind else rest

    def release(self) -> None:
        """No more comes, or nobody waits for it."""
        self.missing.release()
        self._room.release()
