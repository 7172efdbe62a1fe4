"""How many events of one exchange may be on their way: a slow reader stops the reading of its own exchange and of no other."""

from __future__ import annotations

import asyncio

EVENT_WINDOW = 64
"""Events of one exchange on their way: to its client, and, where another cell speaks to the server, between the two cells."""


class Credit:
    """What is left of a window: an event takes one, its reader grants it back. Whoever waits first passes first."""

    __slots__ = ("_left",)

    def __init__(self, window: int) -> None:
        self._left = asyncio.Semaphore(window)

    async def take(self) -> None:
        """Wait until one more event may be sent. A taker that is cancelled has taken nothing."""
        await self._left.acquire()

    def grant(self, event_count: int) -> None:
        """So many events have been read."""
        for _ in range(event_count):
            self._left.release()
