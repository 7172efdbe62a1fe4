"""Tests of the beginning of a connection: handshakes that fail, servers that are slow, clients that do not wait."""

import asyncio
import re

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.upstream.pipes import pipe_starts
from tests.doubles.patience import until
from tests.doubles.pipe_harness import ANY, LEGACY, Harness, conversation, params, refused, silent_server
from tests.doubles.scripted_pipe import INITIALIZE_RESULT


@conversation()
async def test_a_refused_handshake_is_the_servers_answer_and_leaves_no_connection(harness: Harness) -> None:
    harness.server.answers["initialize"] = b'{"code":-32602,"message":"no"}'
    for capabilities in ({}, ANY):
        content = params(protocolVersion=LEGACY, capabilities=capabilities)
        answer = await harness.ask(Request(b'"i"', "initialize", content))
        assert answer == UpstreamAnswer(200, Response(b'"i"', b"", b'{"code":-32602,"message":"no"}'))
    await until(lambda: harness.server.open_count == 0)
    harness.server.answers["initialize"] = INITIALIZE_RESULT
    await harness.open()


@conversation()
async def test_a_handshake_that_is_never_answered_ends_with_its_connection(harness: Harness) -> None:
    del harness.server.answers["initialize"]
    content = params(protocolVersion=LEGACY, capabilities=ANY)
    error = await refused(harness.ask(Request(b"1", "initialize", content), timeout_s=0.05))
    assert error.failure.reason == "upstream_timeout"
    await until(lambda: harness.server.pipes[0].is_closed)


@conversation()
async def test_a_server_that_leaves_during_the_handshake_has_failed_and_no_session_is_lost(harness: Harness) -> None:
    for capabilities, method in (({}, "initialize"), (ANY, "initialize"), ({}, "notifications/initialized")):
        harness.server.ends_before = method
        content = params(protocolVersion=LEGACY, capabilities=capabilities)
        error = await refused(harness.ask(Request(b"1", "initialize", content)))
        assert (error.failure.reason, error.fate.was_sent, error.fate is Fate.SESSION_LOST) == ("upstream_failed", False, False)
        assert error.failure.text == "the server has left"


@conversation(start_timeout_s=60.0, server=silent_server())
async def test_a_client_that_tries_again_gets_the_connection_that_was_starting_for_it(harness: Harness) -> None:
    message = Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities=ANY))
    # 1. It gives up, by its deadline or by going away.
    error = await refused(harness.ask(message, timeout_s=0.05))
    assert (error.fate, error.fate.was_sent) == (Fate.STARTING, False)
    again = asyncio.create_task(harness.ask(message))
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)
    # 2. Another client does not get it, nor do two clients at once.
    other = asyncio.create_task(
        harness.ask(Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities={"roots": {}})))
    )
    again, twin = asyncio.create_task(harness.ask(message)), asyncio.create_task(harness.ask(message))
    await until(lambda: len(harness.server.pipes) == 3 and all(pipe.requests("initialize") for pipe in harness.server.pipes))
    for pipe in harness.server.pipes:
        pipe.say(Response(pipe.requests("initialize")[0].id, INITIALIZE_RESULT, b""))
    sessions = [(await task).session_id for task in (again, twin, other)]
    assert len(set(sessions)) == 3
    assert harness.wire._sessions.by_id[sessions[0] or ""].pipe._pipe is harness.server.pipes[0]


async def waited_for(harness: Harness, message: Request) -> "asyncio.Task[UpstreamAnswer]":
    """A client that waits for a server which has said nothing for a minute."""
    client = asyncio.create_task(harness.ask(message))
    await until(lambda: harness.server.pipes and harness.server.pipes[-1].requests("initialize"))
    (pipe,) = harness.wire._pipes
    pipe.opened_s = pipe.heard_s = pipe.opened_s - 60.0
    return client


@conversation(start_timeout_s=600.0, server=silent_server())
async def test_a_next_try_that_overtakes_the_word_of_the_firsts_end_waits_for_it(harness: Harness) -> None:
    """Another cell tells of the end; until it does, there seem to be two clients."""
    message = Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities=ANY))
    first = await waited_for(harness, message)
    again = asyncio.create_task(harness.ask(message))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    (pipe,) = harness.server.pipes
    pipe.say(Response(pipe.requests("initialize")[0].id, INITIALIZE_RESULT, b""))
    assert (await again).session_id is not None
    assert len(harness.server.pipes) == 1


@pytest.mark.parametrize(("handover_s", "speaks"), [(0.01, False), (60.0, True)])
def test_two_clients_alike_have_two_connections_after_a_little_or_as_soon_as_the_server_has_spoken(
    handover_s: float, speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe_starts, "HANDOVER_S", handover_s)

    @conversation(start_timeout_s=600.0, server=silent_server())
    async def check(harness: Harness) -> None:
        message = Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities=ANY))
        first = await waited_for(harness, message)
        harness.server.answers["initialize"] = INITIALIZE_RESULT  # of the next one
        second = asyncio.create_task(harness.ask(message))
        if not speaks:
            await until(lambda: len(harness.server.pipes) == 2)
        harness.server.pipes[0].say(Response(harness.server.pipes[0].requests("initialize")[0].id, INITIALIZE_RESULT, b""))
        sessions = {answer.session_id for answer in await asyncio.gather(first, second)}
        assert len(sessions) == len(harness.server.pipes) == 2

    check()


@conversation(start_timeout_s=60.0, server=silent_server(), max_pipes=1)
async def test_what_starts_for_nobody_is_kept_for_a_while_and_makes_room_at_once(harness: Harness) -> None:
    for capabilities in (ANY, {"roots": {}}):
        message = Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities=capabilities))
        assert (await refused(harness.ask(message, timeout_s=0.05))).fate is Fate.STARTING
    await until(lambda: [pipe.is_closed for pipe in harness.server.pipes] == [True, False])
    (start,) = harness.wire._starts._private
    assert start.timer is not None
    assert start.timer.when() <= asyncio.get_running_loop().time() + pipe_starts.UNCLAIMED_S
    harness.wire._starts._end_private(start)
    await until(lambda: harness.server.open_count == 0)


@conversation()
async def test_a_server_that_dies_at_once_is_left_alone_for_longer_and_longer(harness: Harness) -> None:
    harness.server.open_error = "'x' cannot be started: No such file or directory"
    errors = []
    for _ in range(40):
        error = await refused(harness.open())
        errors.append(error)
        if "next try" in error.failure.text:
            break
    assert 4 <= len(harness.server.pipes) <= 6
    assert {error.fate.was_sent for error in errors} == {False}
    assert re.fullmatch(
        r"no connection, next try in \d s: failed \d times in a row, last: 'x' cannot be started: No such file or directory",
        errors[-1].failure.text,
    )
    assert errors[-1].failure.reason == "no_backend"
    assert 1.0 <= (errors[-1].failure.retry_after_s or 0.0) <= 4.0
    attempts = len(harness.server.pipes)
    for _ in range(50):
        await refused(harness.open())
    assert len(harness.server.pipes) == attempts
