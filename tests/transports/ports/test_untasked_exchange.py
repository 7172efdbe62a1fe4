"""An exchange that may be begun is awaited like any other as well, by whoever awaits coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.untasked_exchange import OnEnd, UntaskedExchange
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from tests.doubles.patience import on_loop

ANSWER = UpstreamAnswer(200, None)


class Exchange(UntaskedExchange):
    """Ends after a turn of the loop. was_cancelled: while it was awaited."""

    def __init__(self, error: UpstreamError | None = None) -> None:
        self._coroutine = None
        self._error = error
        self.was_cancelled = False

    def begin(self, on_end: OnEnd) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError

    def awaited(self) -> Coroutine[Any, Any, UpstreamAnswer]:
        async def exchange() -> UpstreamAnswer:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise
            if self._error is not None:
                raise self._error
            return ANSWER

        return exchange()


def test_it_is_awaited_alone_in_a_task_and_within_a_time() -> None:
    async def body() -> None:
        assert await Exchange() is ANSWER
        assert await asyncio.get_running_loop().create_task(Exchange()) is ANSWER
        assert await asyncio.wait_for(Exchange(), 60.0) is ANSWER
        assert await asyncio.gather(Exchange(), Exchange()) == [ANSWER, ANSWER]

    on_loop(body)


def test_its_error_reaches_whoever_awaits_it() -> None:
    async def body() -> None:
        cut = UpstreamError(Fate.CUT, "cut")
        for awaited in (Exchange(cut), asyncio.get_running_loop().create_task(Exchange(cut))):
            with pytest.raises(UpstreamError, match="cut"):
                await awaited

    on_loop(body)


def test_a_task_that_is_cancelled_cancels_it() -> None:
    async def body() -> None:
        exchange = Exchange()
        task = asyncio.get_running_loop().create_task(exchange)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert exchange.was_cancelled

    on_loop(body)


def test_one_that_is_neither_begun_nor_awaited_has_nothing_to_close() -> None:
    Exchange().close()
