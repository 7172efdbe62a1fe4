"""Work on large messages, beside the event loop: what takes a tenth of a second there keeps all other clients waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from .fair_turns import FairTurns
from .shared_budget import SharedBudget

AT_ONCE_BYTES: Final = 16_384
"""What is no larger is done on the loop: to hand it over costs more, and a few thousand values are a few milliseconds."""

_THREAD: Final = ThreadPoolExecutor(1, thread_name_prefix="large-message")
"""Of a process: more of them would only take the interpreter from the loop."""

_Made = TypeVar("_Made")


class LargeWork:
    """One piece at a time, by turns of their holders, whoever has most of it to do. Belongs to the loop that uses it."""

    def __init__(self) -> None:
        self._turns = FairTurns(SharedBudget(1, 1.0))

    async def done(self, holder: str, byte_count: int, work: Callable[[], _Made]) -> _Made:
        """What the work, which uses nothing of the loop's, gives or raises. byte_count: of the message that it is about."""
        if byte_count <= AT_ONCE_BYTES:
            return work()
        async with self._turns.turn(holder):
            return await asyncio.get_running_loop().run_in_executor(_THREAD, work)
