"""Turns: never more than there are, in order, and none lost by who no longer waits."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.ports.fair_turns import FairTurns
from mcp_gateway.transports.ports.shared_budget import SharedBudget


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 30)), max_size=40))
def test_turns_are_never_more_than_there_are_and_come_back_however_they_end(steps: list[tuple[str, bool, int]]) -> None:
    """A step: a holder asks, and then some earlier one is done with its turn, or no longer wants it."""

    async def scene() -> None:
        budget = SharedBudget(6, 0.5)
        turns, running = FairTurns(budget), Counter[str]()
        begun: list[tuple[asyncio.Task[None], asyncio.Event]] = []

        async def read(holder: str, done: asyncio.Event) -> None:
            async with turns.turn(holder):
                running[holder] += 1
                try:
                    await done.wait()
                finally:
                    running[holder] -= 1

        for holder, is_cancelled, which in steps:
            done = asyncio.Event()
            begun.append((asyncio.ensure_future(read(holder, done)), done))
            task, event = begun[which % len(begun)]
            if is_cancelled:
                task.cancel()
            else:
                event.set()
            for _ in range(which % 4):
                await asyncio.sleep(0)
            assert running.total() <= 6
            assert all(count <= budget.largest_share for count in running.values())
        for _, event in begun:
            event.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*(task for task, _ in begun), return_exceptions=True)
        assert (budget.held, turns.waiting_count) == (0, 0)

    asyncio.run(scene())


def test_one_holder_is_served_in_the_order_of_asking_and_others_in_between() -> None:
    async def scene() -> None:
        turns, order = FairTurns(SharedBudget(1, 1.0)), []

        async def read(holder: str, name: str) -> None:
            async with turns.turn(holder):
                order.append(name)
                await asyncio.sleep(0)

        await asyncio.gather(*(read(name[0], name) for name in ("a1", "a2", "a3", "b1", "b2")))
        assert order == ["a1", "a2", "b1", "a3", "b2"]

    asyncio.run(scene())
