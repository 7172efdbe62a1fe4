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

    __slots__ = ("_byte_count", "_left", "_sizes", "_waiting")

    def __init__(self, window: int) -> None:
        self._left = window
        self._sizes: deque[int] = deque()  # of the events on their way, in bytes, the oldest first
        self._byte_count = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()  # (done once its event may pass, its size)

    async def take(self, byte_count: int) -> None:
        """Wait until one more event, of this size, may be sent. A taker that is cancelled has taken nothing."""
        if self.take_now(byte_count):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, byte_count))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had just come
                self._left += 1
                self._byte_count -= byte_count
                self._sizes.remove(byte_count)
            self._let_pass()
            raise

    def take_now(self, byte_count: int) -> bool:
        """Whether the event may be sent at once, and is counted."""
        return not self._waiting and self._passes(byte_count)

    def grant(self, event_count: int) -> None:
        """So many events have been read, the oldest first."""
        for _ in range(event_count):
            self._left += 1
            if self._sizes:
                self._byte_count -= self._sizes.popleft()
        self._let_pass()

    def _let_pass(self) -> None:
        while self._waiting:
            turn, byte_count = self._waiting[0]
            if not turn.done():  # its taker was cancelled otherwise
                if not self._passes(byte_count):
                    return
                turn.set_result(None)
            self._waiting.popleft()

    def _passes(self, byte_count: int) -> bool:
        """Whether there is room for an event, which is counted then."""
        if self._left <= 0 or (self._sizes and self._byte_count + byte_count > BYTE_WINDOW):
            return False
        self._left -= 1
        self._sizes.append(byte_count)
        self._byte_count += byte_count
        return True
