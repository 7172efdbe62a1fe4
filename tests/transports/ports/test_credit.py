"""Credit: never more events on their way than the window, and nobody who waits is forgotten."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.ports.credit import Credit


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_window_that_is_used_up_opens_by_what_is_granted_and_the_first_to_wait_passes_first():
    async def body():
        credit, passed = Credit(2), []

        async def speak(number):
            await credit.take()
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
        first, second = (asyncio.create_task(credit.take()) for _ in range(2))
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
                wanted.append(asyncio.create_task(credit.take()))
            else:
                allowed += step
                credit.grant(step)
            await settle()
            assert sum(task.done() for task in wanted) == min(len(wanted), allowed)
        for task in wanted:
            task.cancel()

    asyncio.run(body())
