"""Whose turn it is with something of which there is only so much, where others wait rather than being refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .shared_budget import SharedBudget


class FairTurns:
    """So many have their turn at a time, and of each holder its share; of those who wait each holder has the next in turn.

    turns: a unit for each.
    """

    def __init__(self, turns: SharedBudget) -> None:
        self._turns = turns
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def waiting_count(self) -> int:
        return sum(len(waiting) for waiting in self._waiting.values())

    @asynccontextmanager
    async def turn(self, holder: str) -> AsyncIterator[None]:
        """A block that begins when it is this holder's turn: of one holder in the order of asking."""
        if not self._turns.take(holder):
            await self._wait(holder)
        try:
            yield
        finally:
            self._turns.give_back(holder)
            self._go_on()

    async def _wait(self, holder: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(holder, deque())
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(holder, turn)
            else:  # it had its turn already
                self._turns.give_back(holder)
                self._go_on()
            raise

    def _leave(self, holder: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting[holder]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[holder]

    def _go_on(self) -> None:
        """Give the turn that is free to whoever may have it; the holder who has it goes behind the others."""
        for holder, waiting in list(self._waiting.items()):
            turn = next((each for each in waiting if not each.done()), None)  # who is done no longer waits, and is about to leave
            if turn is None or not self._turns.take(holder):
                continue
            waiting.remove(turn)
            turn.set_result(None)
            del self._waiting[holder]
            if waiting:
                self._waiting[holder] = waiting
            return
