"""How long tests wait for what has to come: one bound for all, which only what never comes reaches, however busy the machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

PATIENCE_S: Final = 90.0
"""Less than what `setup.cfg` gives a test, so that the one who waits says what it was for."""


def patience() -> asyncio.Timeout:
    """`async with patience():` what has to end."""
    return asyncio.timeout(PATIENCE_S)


async def until(*are_true: Callable[[], object]) -> None:
    """Let the loop run until all of them are true at once."""
    async with patience():
        while not all(is_true() for is_true in are_true):
            await asyncio.sleep(0.002)


def on_loop(body: Callable[[], Awaitable[None]]) -> None:
    """Run the body on a loop of its own, and end what it leaves running."""

    async def run() -> None:
        async with patience():
            await body()
        # The end of one task may begin another, for which `asyncio.run` does not wait.
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    asyncio.run(run())
