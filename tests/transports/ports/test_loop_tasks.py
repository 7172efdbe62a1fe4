"""Tasks that are held until they end, and work that is done once for all who wait for it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_gateway.transports.ports.loop_tasks import HeldTasks, SharedTasks, retrieve
from tests.doubles.patience import patience


def on_loop(body: Callable[[list[dict[str, Any]]], Awaitable[None]]) -> None:
    """Run the body; it is given what the loop has complained of so far."""

    async def run() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with patience():
            await body(complaints)

    asyncio.run(run())


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- held


def test_a_task_that_nothing_else_refers_to_runs_to_its_end() -> None:
    """Both wait for each other only, so without a holder the collector would take them."""

    async def body(_: list[dict[str, Any]]) -> None:
        held = HeldTasks()
        ended: list[str] = []

        async def wait_for(event: asyncio.Event) -> None:
            await event.wait()
            ended.append("here")

        event = asyncio.Event()
        seen = weakref.ref(event)
        held.start(wait_for(event))
        del event
        await turns()
        gc.collect()
        found = seen()
        assert found is not None
        found.set()
        await held.wait()
        assert ended == ["here"]

    on_loop(body)


def test_a_task_that_has_ended_is_held_no_longer() -> None:
    async def body(_: list[dict[str, Any]]) -> None:
        held = HeldTasks()
        ended = weakref.ref(held.start(asyncio.sleep(0, "result")))
        await turns()
        gc.collect()
        assert ended() is None

    on_loop(body)


def test_all_are_cancelled_and_waited_for_however_they_end() -> None:
    async def body(_: list[dict[str, Any]]) -> None:
        held = HeldTasks()
        await held.wait()  # for nothing

        async def fail_in_the_end() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await turns()
                raise ValueError("in the end")

        tasks = [held.start(asyncio.sleep(60)), held.start(fail_in_the_end())]
        await turns()
        held.cancel()
        await held.wait()
        assert tasks[0].cancelled()
        assert isinstance(tasks[1].exception(), ValueError)

    on_loop(body)


def test_waiting_has_a_bound() -> None:
    async def body(_: list[dict[str, Any]]) -> None:
        held = HeldTasks()
        task = held.start(asyncio.sleep(60))
        await held.wait(0.01)
        assert not task.done()
        task.cancel()

    on_loop(body)


# ---- shared


class Work:
    """Work that ends when the test says how."""

    def __init__(self) -> None:
        self.begun_count = 0
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def make(self) -> str:
        self.begun_count += 1
        return await self.end


def test_who_asks_meanwhile_shares_the_work_and_its_result() -> None:
    async def body(_: list[dict[str, Any]]) -> None:
        shared: SharedTasks[str, str] = SharedTasks()
        work, other = Work(), Work()
        askers = [asyncio.ensure_future(shared.join(key, each.make)) for key, each in [("a", work), ("a", work), ("b", other)]]
        await turns()
        work.end.set_result("made")
        other.end.set_result("other")
        assert await asyncio.gather(*askers) == ["made", "made", "other"]
        assert (work.begun_count, other.begun_count) == (1, 1)

    on_loop(body)


def test_who_asks_after_its_end_begins_the_work_again() -> None:
    """Even in the very moment of it, when its callbacks have not run: who asks in a loop would ask for ever otherwise."""

    async def body(_: list[dict[str, Any]]) -> None:
        shared: SharedTasks[str, str] = SharedTasks()
        begun: list[asyncio.Task[Any] | None] = []

        async def make() -> str:
            begun.append(asyncio.current_task())
            return f"{len(begun)}"

        async def ask_twice() -> list[str]:
            first = await shared.join("a", make)
            return [first, await shared.join("a", make)]

        assert await asyncio.gather(ask_twice(), ask_twice()) == [["1", "2"], ["1", "2"]]
        first = asyncio.ensure_future(shared.join("a", make))
        while len(begun) < 3 or (task := begun[2]) is None or not task.done():
            await asyncio.sleep(0)
        assert await shared.join("a", make) == "4"
        assert await first == "3"
        await turns()
        assert await shared.join("a", make) == "5"

    on_loop(body)


def test_the_work_goes_on_where_one_who_waits_gives_up_and_where_all_have() -> None:
    async def body(complaints: list[dict[str, Any]]) -> None:
        shared: SharedTasks[str, str] = SharedTasks()
        work = Work()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await shared.join("a", work.make)
        asker = asyncio.ensure_future(shared.join("a", work.make))
        await turns()
        asker.cancel()
        await turns()
        assert work.begun_count == 1
        assert not work.end.cancelled()
        work.end.set_exception(ValueError("nobody hears it"))
        await turns()
        del asker, work  # what they were cancelled with, and what the work ended with, hold the task
        gc.collect()
        assert complaints == []

    on_loop(body)


def test_all_who_wait_are_told_of_the_error_and_the_next_one_begins_anew() -> None:
    async def body(_: list[dict[str, Any]]) -> None:
        shared: SharedTasks[str, str] = SharedTasks()
        work, again = Work(), Work()
        askers = [asyncio.ensure_future(shared.join("a", work.make)) for _ in range(2)]
        await turns()
        work.end.set_exception(ValueError("broken"))
        for asker in askers:
            with pytest.raises(ValueError, match="broken"):
                await asker
        again.end.set_result("mended")
        assert await shared.join("a", again.make) == "mended"

    on_loop(body)


def test_who_waits_for_work_that_is_cancelled_is_told() -> None:
    async def body(_: list[dict[str, Any]]) -> None:
        shared: SharedTasks[str, str] = SharedTasks()
        work, again = Work(), Work()
        asker = asyncio.ensure_future(shared.join("a", work.make))
        await turns()
        shared.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asker
        assert work.end.cancelled()
        again.end.set_result("made")
        assert await shared.join("a", again.make) == "made"

    on_loop(body)


# ---- retrieved


@pytest.mark.parametrize("is_retrieved", [True, False])
def test_an_error_that_is_told_elsewhere_is_not_reported_by_the_loop(is_retrieved: bool) -> None:
    async def body(complaints: list[dict[str, Any]]) -> None:
        for end in ("set_exception", "cancel", "set_result"):
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            getattr(done, end)(*{"set_exception": [OSError("gone")], "cancel": [], "set_result": [None]}[end])
            if is_retrieved:
                done.add_done_callback(retrieve)
            await turns()
            del done
        gc.collect()
        assert len(complaints) == (0 if is_retrieved else 1)

    on_loop(body)
