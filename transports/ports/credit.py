"""How many events of one exchange may be on their way: a slow reader stops the reading of its own exchange and of no other."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

EVENT_WINDOW: Final = 64
"""Events of one exchange on their way: to its client, and, where another cell speaks to the server, between the two cells."""

BYTE_WINDOW: Final = 1_048_576
"""What these may have together. Events may be as large as `max_message_bytes`: one passes alone, whatever its size."""


class Credit:
    """What is left of a window: an event takes one, its reader grants it back. Whoever waits first passes first."""

    __slots__ = ("_byte_count", "_granted", "_left", "_sizes", "_turn")

    def __init__(self, window: int) -> None:
        self._left = asyncio.Semaphore(window)
        self._sizes: deque[int] = deque()  # of the events on their way, in bytes, the oldest first
        self._byte_count = 0
        self._turn = asyncio.Lock()
        self._granted = asyncio.Event()

    async def take(self, byte_count: int) -> None:
        """Wait until one more event, of this size, may be sent. A taker that is cancelled has taken nothing."""
        await self._left.acquire()
        try:
            async with self._turn:
                while self._sizes and self._byte_count + byte_count > BYTE_WINDOW:
                    self._granted.clear()
                    await self._granted.wait()
        except asyncio.CancelledError:
            self._left.release()
            raise
        self._sizes.append(byte_count)
        self._byte_count += byte_count

    def grant(self, event_count: int) -> None:
        """So many events have been read, the oldest first."""
        for _ in range(event_count):
            self._left.release()
            if self._sizes:
                self._byte_count -= self._sizes.popleft()
        self._granted.set()
