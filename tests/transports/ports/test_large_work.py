"""Where work is done: on the loop up to a size, beside it above, by turns."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mcp_gateway.transports.ports.large_work import AT_ONCE_BYTES, LargeWork


def test_work_on_a_message_of_the_limit_is_done_on_the_loop_and_on_a_larger_one_beside_it() -> None:
    async def scene() -> None:
        work = LargeWork()
        here = threading.get_ident()
        assert await work.done("a", AT_ONCE_BYTES, threading.get_ident) == here
        assert await work.done("a", AT_ONCE_BYTES + 1, threading.get_ident) != here

    asyncio.run(scene())


def test_the_loop_goes_on_meanwhile_and_who_has_much_to_do_waits_behind_others() -> None:
    async def scene() -> None:
        work, order, may_end = LargeWork(), [], threading.Event()

        async def do(name: str) -> None:
            await work.done(name[0], AT_ONCE_BYTES + 1, may_end.wait)
            order.append(name)

        tasks = [asyncio.ensure_future(do(name)) for name in ("a1", "a2", "a3", "b1")]
        await asyncio.sleep(0)
        assert order == []
        may_end.set()
        await asyncio.gather(*tasks)
        assert order == ["a1", "a2", "b1", "a3"]

    asyncio.run(scene())


def test_what_the_work_raises_is_raised_and_the_next_has_its_turn() -> None:
    async def scene() -> None:
        work = LargeWork()
        with pytest.raises(ZeroDivisionError):
            await work.done("a", AT_ONCE_BYTES + 1, lambda: 1 // 0)
        assert await work.done("a", AT_ONCE_BYTES + 1, lambda: 1) == 1

    asyncio.run(scene())
