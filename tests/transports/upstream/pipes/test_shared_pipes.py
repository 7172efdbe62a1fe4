"""Tests of the connections that all share, and of how they show a server's era, with scripted servers."""

import asyncio

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response
from mcp_gateway.transports.upstream.pipes import pipe_starts, shared_pipes
from tests.doubles.patience import until
from tests.doubles.pipe_harness import ANY, LEGACY, MODERN, Harness, conversation, params, refused, silent_server
from tests.doubles.scripted_pipe import INITIALIZE_RESULT


@conversation(protocol="auto")
async def test_a_server_that_answers_discover_is_modern_and_the_connection_serves_all_its_requests(harness: Harness) -> None:
    harness.server.answers |= {"server/discover": b'{"supportedVersions":["2026-07-28"]}', "tools/list": b'{"tools":[]}'}
    requests = [harness.ask(Request(b"%d" % each, "tools/list", b"{}"), revision=MODERN) for each in range(3)]
    assert {answer.status for answer in await asyncio.gather(*requests)} == {200}
    assert harness.era.speaks_modern is True
    assert [len(pipe.requests("server/discover")) for pipe in harness.server.pipes] == [1]


@pytest.mark.parametrize("code", [-32601, -32602, -32600, -32000, 0])
def test_a_server_that_gives_any_other_error_is_a_legacy_one(code: int) -> None:
    """Source: MCP 2026-07-28, basic/transports/stdio, "Backward Compatibility": not keyed to one code."""

    @conversation(protocol="auto")
    async def check(harness: Harness) -> None:
        harness.server.answers["server/discover"] = params(code=code, message="?")
        for _ in range(2):
            error = await refused(harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN))
            assert (error.fate is Fate.UNSUPPORTED, error.fate.is_fault) == (True, False)
        assert harness.era.speaks_modern is False
        await harness.open()
        await harness.wire.probe(1.0)
        assert sum(len(pipe.requests("server/discover")) for pipe in harness.server.pipes) == 1

    check()


@conversation(protocol="auto")
async def test_a_modern_error_shows_a_modern_server_that_does_not_know_our_revision(harness: Harness) -> None:
    harness.server.answers["server/discover"] = b'{"code":-32022,"message":"?","data":{"supported":["2027-01-01"]}}'
    harness.server.answers["tools/list"] = b'{"code":-32022,"message":"?"}'
    answer = await harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN)
    assert answer == UpstreamAnswer(400, Response(b"1", b"", b'{"code":-32022,"message":"?"}'))


@conversation(protocol="auto")
async def test_a_server_that_is_silent_to_discover_and_takes_a_handshake_is_a_legacy_one(harness: Harness) -> None:
    shared_pipes.DISCOVER_TIMEOUT_S, kept_s = 0.05, shared_pipes.DISCOVER_TIMEOUT_S  # type: ignore[misc]
    try:
        assert (await refused(harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN))).fate is Fate.UNSUPPORTED
    finally:
        shared_pipes.DISCOVER_TIMEOUT_S = kept_s  # type: ignore[misc]
    assert harness.era.speaks_modern is False


@conversation(protocol="auto")
async def test_a_server_that_leaves_on_discover_and_on_a_handshake_has_no_era(harness: Harness) -> None:
    harness.server.open_error = "cannot be started"
    error = await refused(harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN))
    assert (error.fate is Fate.UNSUPPORTED, error.fate.was_sent, error.failure.text) == (False, False, "cannot be started")
    assert harness.era.speaks_modern is None


@conversation(protocol="auto")
async def test_the_connection_on_which_discover_failed_serves_the_sessions_of_a_legacy_server(harness: Harness) -> None:
    """A start may cost seconds. Source: MCP 2026-07-28, basic/transports/stdio, "Backward Compatibility": it falls back."""
    harness.server.answers["server/discover"] = params(code=-32601, message="?")
    await asyncio.gather(harness.wire.probe(1.0), harness.open())
    await harness.open()
    (pipe,) = harness.server.pipes
    assert [each.method for each in pipe.sent if isinstance(each, Request)][:2] == ["server/discover", "initialize"]
    assert len(pipe.requests("initialize")) == len(pipe.notifications("notifications/initialized")) == 1
    await harness.open(ANY)
    assert len(harness.server.pipes) == 2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """`initialize` follows soon where `server/discover` stays without an answer."""
    monkeypatch.setattr(shared_pipes, "DISCOVER_TIMEOUT_S", 0.02)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("era", ["modern", "legacy", "legacy that ignores discover"])
def test_a_server_that_says_nothing_for_long_is_waited_for_on_the_same_connection(era: str) -> None:
    @conversation(protocol="auto", start_timeout_s=60.0, server=silent_server())
    async def check(harness: Harness) -> None:
        # 1. Whoever gives up is told that it is starting; nothing is closed for that.
        for give_up in (
            harness.wire.probe(0.1),
            harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN, timeout_s=0.01),
            harness.ask(Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities={})), timeout_s=0.01),
        ):
            error = await refused(give_up)
            assert (error.fate, error.failure.reason) == (Fate.STARTING, "upstream_timeout")
            assert error.failure.text.startswith("starting since 0 s")
        (pipe,) = harness.server.pipes
        await until(lambda: pipe.requests("initialize"))
        assert harness.era.is_starting
        # 2. It comes up, and answers what was written to it meanwhile.
        (discovery,), (handshake,) = pipe.requests("server/discover"), pipe.requests("initialize")
        harness.server.answers["ping"] = b"{}"
        if era == "modern":
            harness.server.answers["server/discover"] = b'{"supportedVersions":["2026-07-28"]}'
            pipe.say(Response(discovery.id, harness.server.answers["server/discover"], b""))
            pipe.say(Response(handshake.id, b"", params(code=-32601, message="?")))
        else:
            if era == "legacy":
                pipe.say(Response(discovery.id, b"", params(code=-32601, message="?")))
            pipe.say(Response(handshake.id, INITIALIZE_RESULT, b""))
        await until(lambda: harness.era.speaks_modern is (era == "modern"))
        # 3. From then on it serves, on the connection that there was.
        await harness.wire.probe(1.0)
        if era != "modern":
            await harness.open()
        assert harness.server.pipes == [pipe]
        assert not harness.era.is_starting

    check()


@pytest.mark.usefixtures("impatient")
def test_a_start_that_never_ends_is_given_up_and_the_next_one_is_a_failure_until_the_server_speaks() -> None:
    @conversation(protocol="auto", start_timeout_s=0.3, server=silent_server())
    async def check(harness: Harness) -> None:
        assert (await refused(harness.wire.probe(0.1))).fate is Fate.STARTING
        await until(lambda: harness.server.pipes[0].is_closed)
        error = await refused(harness.wire.probe(0.1))
        assert (error.fate, len(harness.server.pipes)) == (Fate.UNREACHABLE, 2)
        harness.server.pipes[1].say(
            Response(harness.server.pipes[1].requests("server/discover")[0].id, b'{"supportedVersions":["2026-07-28"]}', b"")
        )
        await until(lambda: harness.era.speaks_modern)

    monkeypatched = pytest.MonkeyPatch()
    for module in (pipe_starts, shared_pipes):
        monkeypatched.setattr(module, "OPEN_TIMEOUT_S", 0.3)
    try:
        check()
    finally:
        monkeypatched.undo()
