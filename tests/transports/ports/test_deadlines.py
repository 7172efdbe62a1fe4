"""Deadlines that share a timer: each ends its own block, and no other."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

import pytest

from mcp_gateway.transports.ports.deadlines import Deadlines

_LONG_S = 60.0
_SHORT_S = 0.02
_BOUND_S = 20.0


P = ParamSpec("P")


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*arguments: P.args, **keywords: P.kwargs) -> None:
        asyncio.run(test(*arguments, **keywords))

    return run


def timers() -> list[asyncio.TimerHandle]:
    """That the loop has still to call."""
    return [each for each in asyncio.get_running_loop()._scheduled if not each.cancelled()]  # type: ignore[attr-defined]


@on_loop
async def test_what_takes_too_long_ends_with_a_timeout_and_its_task_goes_on() -> None:
    deadlines = Deadlines()
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        with deadlines.within(_SHORT_S):
            await asyncio.sleep(_LONG_S)
    assert _SHORT_S <= time.monotonic() - began_s < _BOUND_S
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    await asyncio.sleep(0)


@pytest.mark.parametrize("timeout_s", [_LONG_S, None])
@on_loop
async def test_what_ends_in_time_is_left_alone(timeout_s: float | None) -> None:
    deadlines = Deadlines()
    with deadlines.within(timeout_s):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="its own"):
        with deadlines.within(timeout_s):
            raise ValueError("its own")


@on_loop
async def test_a_time_of_nothing_is_over_at_the_first_wait() -> None:
    deadlines = Deadlines()
    with pytest.raises(TimeoutError):
        with deadlines.within(0.0):
            await asyncio.sleep(_LONG_S)


@on_loop
async def test_one_timer_serves_all_and_each_ends_when_its_own_time_is_over() -> None:
    """The earliest comes last here, and one that has ended is no reason to end another."""
    deadlines = Deadlines()
    ended: list[float] = []

    async def work(timeout_s: float) -> None:
        try:
            with deadlines.within(timeout_s):
                await asyncio.sleep(_LONG_S)
        except TimeoutError:
            ended.append(timeout_s)

    before = len(timers())
    works = [asyncio.ensure_future(work(timeout_s)) for timeout_s in (_LONG_S, 0.3, _SHORT_S)]
    await asyncio.sleep(0)
    assert len(timers()) - before == 1 + len(works), "each sleep has one"
    await asyncio.wait_for(asyncio.gather(*works[1:]), _BOUND_S)
    assert ended == [_SHORT_S, 0.3]
    assert not works[0].done()
    works[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await works[0]


@on_loop
async def test_a_deadline_that_nothing_is_left_of_keeps_no_timer_going() -> None:
    deadlines = Deadlines()
    for _ in range(3):
        with deadlines.within(_SHORT_S):
            await asyncio.sleep(0)
    async with asyncio.timeout(_BOUND_S):
        while timers()[1:]:
            await asyncio.sleep(_SHORT_S)


@on_loop
async def test_who_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(_LONG_S):
            await asyncio.sleep(_LONG_S)

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@on_loop
async def test_who_is_cancelled_as_its_time_is_over_stays_cancelled() -> None:
    """A client that goes at that moment is not told of a timeout, whichever of the two came first."""
    deadlines = Deadlines()
    deadline = deadlines.within(_LONG_S)

    async def work() -> None:
        with deadline:
            await asyncio.sleep(_LONG_S)

    for is_first in (True, False):
        deadline = deadlines.within(_LONG_S)
        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        for end in (task.cancel, deadline.has_passed) if is_first else (deadline.has_passed, task.cancel):
            end()
        with pytest.raises(asyncio.CancelledError):
            await task


class _Call:
    """Ends another one when its own time is over. passed: how often it was."""

    def __init__(self, deadlines: Deadlines, timeout_s: float) -> None:
        self._deadlines = deadlines
        self.due_s = asyncio.get_running_loop().time() + timeout_s
        self.ends: _Call | None = None
        self.passed = 0
        deadlines.begin(self)

    def has_passed(self) -> None:
        self.passed += 1
        if self.ends is not None:
            self._deadlines.end(self.ends)


@on_loop
async def test_one_that_was_ended_by_another_at_the_same_moment_has_not_passed() -> None:
    deadlines = Deadlines()
    one, other = _Call(deadlines, 0.0), _Call(deadlines, 0.0)
    one.ends, other.ends = other, one
    async with asyncio.timeout(_BOUND_S):
        while not one.passed + other.passed:
            await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert one.passed + other.passed == 1
