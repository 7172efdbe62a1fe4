"""What one cell knows of owners, and until when it may rely on it."""

from __future__ import annotations

import asyncio

import pytest

from mcp_gateway.actors.forwarding import holdings as holdings_module
from mcp_gateway.actors.forwarding.holdings import Holdings
from mcp_gateway.actors.messages.cluster import Ownership
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from tests.doubles.patience import on_loop, until

THING = "files/stdio:files#0"
LONG_S = 3_600.0


def test_a_thing_is_held_under_its_very_token_while_the_lease_lasts() -> None:
    async def test() -> None:
        holdings = Holdings("a", lambda thing: None)
        assert not holdings.is_held(THING, 5)
        holdings.told({THING: Ownership("a", 5)}, lease_clock_s() + LONG_S)
        assert [holdings.is_held(THING, token) for token in (4, 5, 6)] == [False, True, False]
        assert not holdings.is_held("other", 5)
        holdings.told({THING: Ownership("b", 6)}, lease_clock_s() + LONG_S)
        assert [holdings.is_held(THING, token) for token in (5, 6)] == [False, False]
        assert holdings.owner(THING) == Ownership("b", 6)

    on_loop(test)


def test_at_the_end_of_the_lease_nothing_is_held_though_nobody_has_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was stopped and goes on: the clock is looked at before anything else."""

    async def test() -> None:
        now_s = lease_clock_s()
        holdings = Holdings("a", lambda thing: None)
        holdings.told({THING: Ownership("a", 5)}, now_s + 8)
        monkeypatch.setattr(holdings_module, "lease_clock_s", lambda: now_s + 7.99)
        assert holdings.is_held(THING, 5)
        monkeypatch.setattr(holdings_module, "lease_clock_s", lambda: now_s + 8)
        assert not holdings.is_held(THING, 5)
        assert holdings.owner(THING) is None

    on_loop(test)


def test_watchers_are_told_of_changes_and_of_the_end_of_the_lease() -> None:
    async def test() -> None:
        told: list[bool] = []
        holdings = Holdings("a", lambda thing: None)

        def watcher() -> None:
            told.append(holdings.is_held(THING, 5))

        holdings.watch(watcher)
        holdings.told({THING: Ownership("a", 5)}, lease_clock_s() + 0.2)
        assert told == [True]
        await until(lambda: told == [True, False])
        holdings.told({THING: Ownership("a", 5)}, lease_clock_s() + LONG_S)
        holdings.forget(watcher)
        holdings.told({}, 0.0)
        assert told == [True, False, True]
        assert holdings.lease_until_s == 0.0

    on_loop(test)


def test_what_nobody_owns_is_wanted_until_somebody_does() -> None:
    async def test() -> None:
        wanted: list[str] = []
        holdings = Holdings("a", wanted.append)
        holdings.told({}, lease_clock_s() + LONG_S)
        finding = asyncio.ensure_future(holdings.owner_found(THING, 20))
        await until(lambda: wanted)
        holdings.told({"other": Ownership("a", 4)}, lease_clock_s() + LONG_S)
        await until(lambda: len(wanted) > 1)
        holdings.told({THING: Ownership("b", 5)}, lease_clock_s() + LONG_S)
        assert await finding == Ownership("b", 5)
        assert set(wanted) == {THING}

    on_loop(test)


def test_a_node_that_is_cut_off_is_told_at_once_that_no_owner_is_known() -> None:
    async def test() -> None:
        wanted: list[str] = []
        holdings = Holdings("a", wanted.append)
        with pytest.raises(TimeoutError, match="cut off"):
            await holdings.owner_found(THING, LONG_S)
        holdings.told({}, lease_clock_s() + LONG_S)
        finding = asyncio.ensure_future(holdings.owner_found(THING, LONG_S))
        await until(lambda: wanted)
        holdings.told({}, 0.0)
        with pytest.raises(TimeoutError, match="cut off"):
            await finding

    on_loop(test)


def test_an_owner_that_cannot_be_found_is_waited_for_no_longer_than_the_caller_does() -> None:
    async def test() -> None:
        holdings = Holdings("a", lambda thing: None)
        holdings.told({}, lease_clock_s() + LONG_S)
        with pytest.raises(TimeoutError):
            await holdings.owner_found(THING, 0.05)

    on_loop(test)
