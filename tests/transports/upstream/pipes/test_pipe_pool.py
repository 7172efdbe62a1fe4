"""Tests of which connection is closed, and of when the next one may be opened."""

import asyncio
import logging
from typing import Any

import attrs
import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError, ignore_events
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.upstream.pipes import pipe_pool
from mcp_gateway.transports.upstream.pipes.pipe_pool import PipePool, idle, least_needed, sleepers
from tests.doubles.patience import until
from tests.doubles.scripted_pipe import ScriptedServer


@attrs.frozen
class Use:
    used_s: float
    is_busy: bool = False
    has_stream: bool = False
    is_private: bool = True
    keeps_state: bool = False


def test_a_busy_one_is_never_closed_and_one_that_is_listened_to_only_if_there_is_no_other() -> None:
    busy, listened, fresh, old = Use(0, is_busy=True), Use(1, has_stream=True), Use(3), Use(2)
    assert least_needed([busy, listened, fresh, old]) == old
    assert least_needed([busy, listened, fresh]) == fresh
    assert least_needed([busy, listened]) == listened
    subscribed = Use(0, keeps_state=True)
    assert least_needed([subscribed, fresh]) == fresh
    assert least_needed([subscribed, listened]) == subscribed
    assert least_needed([busy]) is None
    assert least_needed([]) is None


def test_idle_is_who_has_neither_call_nor_listener_for_so_long() -> None:
    pipes = [Use(0), Use(0, is_busy=True), Use(0, has_stream=True), Use(1), Use(1.5)]
    assert idle(pipes, 11.0, 10.0) == [Use(0), Use(1)]


def test_who_is_put_to_sleep_serves_one_session_that_has_nothing_open_the_longest_idle_first() -> None:
    pipes = [
        Use(1),
        Use(0),
        Use(1.5),
        Use(0, is_busy=True),
        Use(0, has_stream=True),
        Use(0, keeps_state=True),
        Use(0, is_private=False),
    ]
    assert sleepers(pipes, 11.0, 10.0) == [Use(0), Use(1)]
    assert sleepers(pipes, 11.0, float("inf")) == []


@pytest.mark.parametrize(
    ("method", "is_use", "counts"), [("tools/call", True, False), ("ping", True, True), ("tools/list", False, True)]
)
def test_a_server_that_ends_young_after_it_has_served_a_client_is_no_crash_loop(method: str, is_use: bool, counts: bool) -> None:
    """Somebody kills it, or a tool does: it is started again at once, as often as clients come."""

    async def check() -> None:
        server = ScriptedServer(**{method: b"{}"})
        pool = PipePool("npx", server, backend="b", max_pipes=2, idle_s=60.0, on_gone=lambda _: None)
        for _ in range(2):
            pipe = await pool.open(is_private=False, is_modern=False)
            await pipe.request("", Request(b"1", method, b""), ignore_events, 5.0, is_use=is_use)
            server.pipes[-1].end("killed")
            await until(lambda: not pipe.is_open)  # noqa: B023
        assert pool._backoff.failure_count == (2 if counts else 0)
        await pool.close()

    asyncio.run(check())


@pytest.mark.parametrize("has_spoken", [False, True])
def test_a_server_that_ends_without_a_word_is_tried_less_and_less_however_long_it_has_lived(
    has_spoken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe_pool, "_LIVED_S", 0.01)
    monkeypatch.setattr(pipe_pool, "_LONGEST_WAIT_S", 0.1)

    async def check() -> None:
        server, loop = ScriptedServer(), asyncio.get_running_loop()
        pool = PipePool("npx", server, backend="b", max_pipes=2, idle_s=60.0, on_gone=lambda _: None)
        for _ in range(2):
            pipe = await pool.open(is_private=False, is_modern=False)
            if has_spoken:
                server.pipes[-1].say(Notification("notifications/message", b"{}"))
            await until(lambda: loop.time() - pipe.opened_s > 0.03)  # noqa: B023
            server.pipes[-1].end("exit status 1")
            await until(lambda: not pipe.is_open)  # noqa: B023
        if has_spoken:
            await pool.open(is_private=False, is_modern=False)
        else:
            with pytest.raises(UpstreamError, match="failed 2 times in a row, last: exit status 1"):
                await pool.open(is_private=False, is_modern=False)
        await pool.close()

    asyncio.run(check())


async def failed(pool: PipePool) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await pool.open(is_private=True, is_modern=False)
    return caught.value


def pool_of(server: ScriptedServer, **options: Any) -> PipePool:
    return PipePool(
        "npx",
        server,
        **{"backend": "b", "max_pipes": 9, "idle_s": 60.0, "on_gone": lambda _: None, "trouble": "crash loop", **options},
    )


def test_in_a_loop_callers_are_told_when_to_come_back_and_the_log_each_doubling(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def check() -> None:
        server = ScriptedServer()
        server.open_error = "no such program"
        pool = pool_of(server)
        for _ in range(5):
            assert (await failed(pool)).failure.text == "no such program"
        monkeypatch.setattr(pipe_pool, "_LONGEST_WAIT_S", 0.1)
        for _ in range(100):
            told = (await failed(pool)).failure
            assert told.text == "crash loop, next try in 2 s: failed 5 times in a row, last: no such program"
            assert (told.fate, told.reason) == (Fate.TURNED_AWAY, "no_backend")
            assert 1.0 <= (told.retry_after_s or 0.0) <= 2.0
        assert str(pool.pause()) == told.text
        assert len(server.pipes) == 5
        await pool.close()

    asyncio.run(check())
    assert [record.getMessage() for record in caplog.records] == [
        "npx: no such program",
        "npx: crash loop, next try in 1 s: failed 2 times in a row, last: no such program",
        "npx: crash loop, next try in 1 s: failed 4 times in a row, last: no such program",
    ]


def test_in_a_loop_a_server_is_tried_by_one_caller_at_a_time_until_it_gives_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Callers who were sent away together come back together."""
    monkeypatch.setattr(pipe_pool, "_LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(pipe_pool, "_LONGEST_PAUSE_S", 0.01)

    async def check() -> None:
        server = ScriptedServer()
        server.open_error = "no such program"
        pool = pool_of(server)
        for _ in range(5):
            await failed(pool)
        server.open_error = ""
        outcomes = await asyncio.gather(*(pool.open(is_private=True, is_modern=False) for _ in range(8)), return_exceptions=True)
        assert len(server.pipes) == 6
        assert sum(isinstance(each, UpstreamError) for each in outcomes) == 7
        server.pipes[-1].say(Notification("notifications/message", b"{}"))
        pipe = next(iter(pool))
        await until(lambda: pipe.has_spoken)
        await pool.open(is_private=True, is_modern=False)
        await pool.close()

    asyncio.run(check())


def test_a_pipe_that_has_lived_for_some_time_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_pool, "_LIVED_S", 0.05)
    monkeypatch.setattr(pipe_pool, "_LONGEST_PAUSE_S", 0.01)

    async def check() -> None:
        server = ScriptedServer()
        server.open_error = "no such program"
        pool = pool_of(server)
        for _ in range(6):
            await failed(pool)
        server.open_error = ""
        await pool.open(is_private=True, is_modern=False)
        server.pipes[-1].say(Notification("notifications/message", b"{}"))
        loop = asyncio.get_running_loop()
        lived_s = loop.time() + 0.2
        await until(lambda: loop.time() > lived_s)
        server.open_error = "gone again"
        assert (await failed(pool)).failure.text == "gone again"
        assert pool.pause() is None, "it is the first failure of its row"
        await pool.close()

    asyncio.run(check())
