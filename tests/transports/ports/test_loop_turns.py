"""Work for the loop's next turn: all of it, in order, and none that fails takes the rest along."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp_gateway.transports.ports.loop_turns import NextTurn
from tests.doubles.patience import on_loop, until


def test_work_is_done_in_order_and_not_at_once() -> None:
    async def body() -> None:
        done: list[int] = []
        turn = NextTurn()
        for number in range(3):
            turn.add(lambda number=number: done.append(number))  # type: ignore[misc]
        assert not done
        await until(lambda: len(done) == 3)
        assert done == [0, 1, 2]

    on_loop(body)


def test_what_work_brings_about_is_done_in_a_turn_of_its_own() -> None:
    async def body() -> None:
        done: list[str] = []
        turn = NextTurn()
        turn.add(lambda: turn.add(lambda: done.append("later")))
        turn.add(lambda: done.append("sooner"))
        await until(lambda: len(done) == 2)
        assert done == ["sooner", "later"]

    on_loop(body)


def test_work_that_fails_is_reported_and_the_rest_is_done() -> None:
    async def body() -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        done: list[str] = []
        turn = NextTurn()
        turn.add(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        turn.add(lambda: done.append("the rest"))
        await until(lambda: bool(done))
        assert isinstance(reports[0]["exception"], ZeroDivisionError)

    on_loop(body)
