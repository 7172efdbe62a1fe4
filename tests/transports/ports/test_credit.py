"""Credit: never more events on their way than the window, and nobody who waits is forgotten."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.ports.credit import BYTE_WINDOW, Credit


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_window_that_is_used_up_opens_by_what_is_granted_and_the_first_to_wait_passes_first():
    async def body():
        credit, passed = Credit(2), []

        async def speak(number):
            await credit.take(0)
            passed.append(number)

        tasks = [asyncio.create_task(speak(number)) for number in range(6)]
        await settle()
        assert passed == [0, 1]
        credit.grant(3)
        await settle()
        assert passed == [0, 1, 2, 3, 4]
        credit.grant(1)
        await asyncio.gather(*tasks)
        assert passed == [0, 1, 2, 3, 4, 5]

    asyncio.run(body())


def test_a_grant_that_a_cancelled_taker_was_about_to_get_goes_to_the_next():
    async def body():
        credit = Credit(0)
        first, second = (asyncio.create_task(credit.take(0)) for _ in range(2))
        await settle()
        credit.grant(1)
        first.cancel()
        await asyncio.wait_for(second, 1)
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(body())


@given(window=st.integers(0, 3), steps=st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=30))
def test_as_many_pass_as_the_window_and_the_grants_allow(window, steps):
    """A step: None, one more event; a number, so many granted."""

    async def body():
        credit, wanted, allowed = Credit(window), [], window
        for step in steps:
            if step is None:
                wanted.append(asyncio.create_task(credit.take(0)))
            else:
                allowed += step
                credit.grant(step)
            await settle()
            assert sum(task.done() for task in wanted) == min(len(wanted), allowed)
        for task in wanted:
            task.cancel()

    asyncio.run(body())


def test_large_events_pass_one_after_the_other_and_one_beyond_the_window_alone():
    async def body():
        credit, passed = Credit(100), []

        async def speak(size):
            await credit.take(size)
            passed.append(size)

        sizes = [BYTE_WINDOW - 10, 10, 1, BYTE_WINDOW * 4, 5]
        tasks = [asyncio.create_task(speak(size)) for size in sizes]
        await settle()
        assert passed == sizes[:2]  # to the byte
        credit.grant(1)
        await settle()
        assert passed == sizes[:3]
        credit.grant(1)
        await settle()
        assert passed == sizes[:3]  # the large one waits until nothing else is on its way, and those behind it wait, too
        credit.grant(1)
        await settle()
        assert passed == sizes[:4]
        credit.grant(1)
        await asyncio.gather(*tasks)
        assert passed == sizes

    asyncio.run(body())


def test_who_is_cancelled_while_it_waits_for_bytes_has_taken_nothing():
    async def body():
        credit = Credit(2)
        await credit.take(BYTE_WINDOW)
        cancelled = asyncio.create_task(credit.take(1))
        await settle()
        cancelled.cancel()
        await settle()
        assert cancelled.cancelled()
        credit.grant(1)
        await asyncio.wait_for(credit.take(BYTE_WINDOW), 1)
        waits = asyncio.create_task(credit.take(1))
        await settle()
        assert not waits.done()
        credit.grant(1)
        await asyncio.wait_for(waits, 1)

    asyncio.run(body())


@given(steps=st.lists(st.one_of(st.integers(0, BYTE_WINDOW * 2), st.none()), max_size=30))
def test_never_more_bytes_are_on_their_way_than_the_window_or_one_event(steps):
    """A step: a size, one more event; None, the oldest is granted."""

    async def body():
        credit, under_way, tasks = Credit(64), [], []

        async def speak(size):
            await credit.take(size)
            under_way.append(size)

        for step in steps:
            if step is not None:
                tasks.append(asyncio.create_task(speak(step)))
            elif under_way:
                under_way.pop(0)
                credit.grant(1)
            await settle()
            assert len(under_way) <= 1 or sum(under_way) <= BYTE_WINDOW
            assert under_way or all(task.done() for task in tasks), "nobody waits for nothing"
        for task in tasks:
            task.cancel()

    asyncio.run(body())


@given(steps=st.lists(st.tuples(st.sampled_from(["take", "grant", "cancel"]), st.integers(0, 9), st.booleans()), max_size=40))
def test_whoever_is_cancelled_when_has_taken_nothing_and_the_window_is_whole_in_the_end(steps):
    """A step: what happens, to whom, and whether the loop turns before the next."""

    async def body():
        credit, under_way, tasks = Credit(2), [], []

        async def speak():
            await credit.take(10)
            under_way.append(None)

        for what, which, turns in steps:
            if what == "take":
                tasks.append(asyncio.create_task(speak()))
            elif what == "cancel" and tasks:
                tasks[which % len(tasks)].cancel()
            elif what == "grant" and under_way:
                under_way.pop()
                credit.grant(1)
            if turns:
                await settle()
            assert len(under_way) <= 2
        await settle()
        while under_way:
            under_way.pop()
            credit.grant(1)
            await settle()
        assert all(task.done() for task in tasks)
        last = [asyncio.create_task(speak()) for _ in range(3)]
        await settle()
        assert [task.done() for task in last] == [True, True, False]
        last[2].cancel()

    asyncio.run(body())
