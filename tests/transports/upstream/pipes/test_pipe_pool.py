"""Tests of which connection is closed, and of when the next one may be opened."""

import asyncio

import attrs
import pytest

from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification
from mcp_gateway.transports.upstream.pipes import pipe_pool
from mcp_gateway.transports.upstream.pipes.pipe_pool import PipePool, idle, least_needed
from tests.doubles.scripted_pipe import ScriptedServer, settled


@attrs.frozen
class Use:
    used_s: float
    is_busy: bool = False
    has_stream: bool = False


def test_a_busy_one_is_never_closed_and_one_that_is_listened_to_only_if_there_is_no_other() -> None:
    busy, listened, fresh, old = Use(0, is_busy=True), Use(1, has_stream=True), Use(3), Use(2)
    assert least_needed([busy, listened, fresh, old]) == old
    assert least_needed([busy, listened, fresh]) == fresh
    assert least_needed([busy, listened]) == listened
    assert least_needed([busy]) is None
    assert least_needed([]) is None


def test_idle_is_who_has_neither_call_nor_listener_for_so_long() -> None:
    pipes = [Use(0), Use(0, is_busy=True), Use(0, has_stream=True), Use(1), Use(1.5)]
    assert idle(pipes, 11.0, 10.0) == [Use(0), Use(1)]


@pytest.mark.parametrize("has_spoken", [False, True])
def test_a_server_that_ends_without_a_word_is_tried_less_and_less_however_long_it_has_lived(
    has_spoken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe_pool, "_LIVED_S", 0.01)
    monkeypatch.setattr(pipe_pool, "_LONGEST_WAIT_S", 0.1)

    async def check() -> None:
        server, loop = ScriptedServer(), asyncio.get_running_loop()
        pool = PipePool("npx", server, max_pipes=2, idle_s=60.0, on_gone=lambda _: None)
        for _ in range(2):
            pipe = await pool.open(is_private=False, is_modern=False)
            if has_spoken:
                server.pipes[-1].say(Notification("notifications/message", b"{}"))
            await settled(lambda: loop.time() - pipe.opened_s > 0.03)  # noqa: B023
            server.pipes[-1].end("exit status 1")
            await settled(lambda: not pipe.is_open)  # noqa: B023
        if has_spoken:
            await pool.open(is_private=False, is_modern=False)
        else:
            with pytest.raises(UpstreamError, match="failed 2 times in a row, last: exit status 1"):
                await pool.open(is_private=False, is_modern=False)
        await pool.close()

    asyncio.run(check())
