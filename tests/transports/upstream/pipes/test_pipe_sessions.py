"""Tests of sessions over connections that are their own session: who shares one, who has one, who moves."""

import asyncio
import json

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.upstream.pipes import pipe_sessions
from mcp_gateway.transports.upstream.pipes.multiplexer import MAX_ASKED
from mcp_gateway.transports.upstream.pipes.pipe_pool import CLOSING_AT_ONCE
from tests.doubles.patience import until
from tests.doubles.pipe_harness import ANY, INITIALIZED, LEGACY, Harness, conversation, params, refused


@conversation()
async def test_sessions_whose_clients_cannot_be_asked_share_one_connection_and_one_handshake(harness: Harness) -> None:
    sessions = [await harness.open(request_id=b'"%d"' % number) for number in range(5)]
    assert len(set(sessions)) == 5
    (pipe,) = harness.server.pipes
    assert len(pipe.requests("initialize")) == 1
    assert len(pipe.notifications("notifications/initialized")) == 1
    calls = [harness.call(session_id) for session_id in sessions]
    await until(lambda: len(pipe.requests("tools/call")) == 5)
    for number, request in reversed(list(enumerate(pipe.requests("tools/call")))):
        pipe.say(Response(request.id, params(number=number), b""))
    answers = [await task for task in calls]
    assert [answer.response for answer in answers] == [Response(b"1", params(number=number), b"") for number in range(5)]


@conversation()
async def test_clients_that_ask_at_once_wait_for_the_one_handshake_and_each_revision_has_its_own(harness: Harness) -> None:
    future = [harness.open(revision=each) for each in ("2027-01-01", "2026-07-28", "session x", "")]
    await asyncio.gather(*(harness.open() for _ in range(4)), *future, harness.open(revision="2025-06-18"))
    assert [len(pipe.requests("initialize")) for pipe in harness.server.pipes] == [1, 1]


@conversation()
async def test_a_session_whose_client_can_be_asked_has_a_connection_of_its_own(harness: Harness) -> None:
    first, second = await harness.open({"elicitation": {}}), await harness.open({"roots": {}})
    pipes = harness.server.pipes
    assert [len(pipe.notifications("notifications/initialized")) for pipe in pipes] == [1, 1]
    calls = [harness.call(first), harness.call(second)]
    await until(lambda: all(pipe.requests("tools/call") for pipe in pipes))
    question = Request(b"9", "elicitation/create", b"{}")
    pipes[1].say(question)
    await until(lambda: harness.events == [question])
    await harness.tell(Response(b"9", b'{"action":"decline"}', b""), first)
    assert not pipes[0].responses(), "the first client was not asked"
    await harness.tell(Response(b"9", b'{"action":"accept"}', b""), second)
    assert pipes[1].responses() == [Response(b"9", b'{"action":"accept"}', b"")]
    for task, pipe in zip(calls, pipes, strict=True):
        pipe.say(Response(pipe.requests("tools/call")[0].id, b"{}", b""))
        await task


@conversation()
async def test_questions_beyond_the_bound_are_refused_and_counted(harness: Harness) -> None:
    counter = metrics.bounds_reached_total.labels("questions")
    before = counter._value.get()
    call = harness.call(await harness.open({"roots": {}}))
    (pipe,) = harness.server.pipes
    await until(lambda: bool(pipe.requests("tools/call")))
    for number in range(MAX_ASKED + 2):
        pipe.say(Request(b"%d" % (100 + number), "roots/list", b"{}"))
    await until(lambda: len(pipe.responses()) == 2)
    assert [each.id for each in pipe.responses()] == [b"%d" % (100 + MAX_ASKED), b"%d" % (101 + MAX_ASKED)]
    assert counter._value.get() == before + 2
    pipe.say(Response(pipe.requests("tools/call")[0].id, b"{}", b""))
    await call


@conversation()
async def test_a_client_that_says_very_much_of_itself_has_a_connection_of_its_own(harness: Harness) -> None:
    """So that what is kept of sessions that share one is bounded."""
    for size in (8_000, 8_000, 8_192):
        await harness.open({"experimental": {"x": {"y": "z" * size}}})
    assert len(harness.server.pipes) == 2
    assert sum(len(session.initialize) for session in harness.wire._sessions.by_id.values()) < 2 * 8_192


@conversation()
async def test_a_session_that_begins_to_keep_state_moves_to_a_connection_of_its_own_with_its_stream(harness: Harness) -> None:
    session_id, other = await harness.open(), await harness.open()
    stream, other_stream = harness.listen(session_id), harness.listen(other)
    await until(lambda: harness.opened == [session_id, other])
    harness.server.answers["logging/setLevel"] = b"{}"
    await asyncio.gather(
        *(harness.ask(Request(b"%d" % each, "logging/setLevel", params(level="info")), session_id) for each in range(3))
    )
    shared, private = harness.server.pipes
    assert private.requests("initialize")[0].params == shared.requests("initialize")[0].params
    assert len(private.notifications("notifications/initialized")) == 1
    assert (len(private.requests("logging/setLevel")), len(shared.requests("logging/setLevel"))) == (3, 0)
    message = Notification("notifications/message", params(level="info", data=1))
    private.say(message)
    await until(lambda: harness.events == [message])
    shared.say(Notification("notifications/tools/list_changed", b""))
    await until(lambda: len(harness.events) == 2)
    await harness.terminate(session_id)
    assert (await stream) == UpstreamAnswer(200, None)
    assert not other_stream.done()


@conversation()
async def test_a_call_that_began_before_its_session_moved_can_be_cancelled(harness: Harness) -> None:
    session_id = await harness.open()
    call = asyncio.ensure_future(harness.ask(Request(b"7", "tools/call", b"{}"), session_id))
    await until(lambda: bool(harness.server.pipes[0].requests("tools/call")))
    harness.server.answers["logging/setLevel"] = b"{}"
    await harness.ask(Request(b"8", "logging/setLevel", params(level="info")), session_id)
    await harness.tell(Notification("notifications/cancelled", params(requestId=7)), session_id)
    shared, private = harness.server.pipes
    (request,) = shared.requests("tools/call")
    assert shared.notifications("notifications/cancelled") == [{"requestId": json.loads(request.id)}]
    assert private.notifications("notifications/cancelled") == []
    assert "cancelled" in (await refused(call)).failure.text


@conversation(max_pipes=1)
async def test_a_session_may_move_even_where_only_one_connection_is_allowed(harness: Harness) -> None:
    session_id = await harness.open()
    harness.server.answers["resources/subscribe"] = b"{}"
    await harness.ask(Request(b"1", "resources/subscribe", params(uri="a://b")), session_id)
    await until(lambda: [pipe.is_open for pipe in harness.server.pipes] == [False, True])


@conversation()
async def test_ending_a_session_closes_its_own_connection_and_not_the_shared_one(harness: Harness) -> None:
    shared, private = await harness.open(), await harness.open(ANY)
    for session_id in (shared, private, shared, "unknown"):
        await harness.terminate(session_id)
    await until(lambda: [pipe.is_open for pipe in harness.server.pipes] == [True, False])
    for session_id in (shared, private):
        error = await refused(harness.ask(Request(b"1", "tools/list", b""), session_id))
        assert (error.fate is Fate.SESSION_LOST, error.fate.was_sent, error.fate.is_fault) == (True, False, False)


@conversation()
async def test_an_unknown_session_is_lost_whatever_it_wants(harness: Harness) -> None:
    for session_id in ("unknown", None):
        for exchange in (
            harness.ask(Request(b"1", "tools/list", b""), session_id),
            harness.tell(INITIALIZED, session_id),
            harness.wire.exchange(
                UpstreamRequest(kind=RequestKind.STREAM, revision=LEGACY, session_id=session_id), harness.on_event
            ),
        ):
            error = await refused(exchange)
            assert (error.fate is Fate.SESSION_LOST, error.fate.was_sent, error.fate.is_fault) == (True, False, False)
    assert harness.server.pipes == []


@conversation(max_pipes=3)
async def test_ten_thousand_sessions_opened_and_never_closed_leave_a_bounded_number_of_connections(harness: Harness) -> None:
    first = await harness.open(ANY)
    for _ in range(1_000):
        await harness.open(ANY)
        assert harness.server.open_count <= 3 + CLOSING_AT_ONCE
    await until(lambda: harness.server.open_count == 3)
    assert (await refused(harness.ask(Request(b"1", "tools/list", b""), first))).fate is Fate.SESSION_LOST
    for _ in range(9_000):
        await harness.open()
    assert len(harness.wire._sessions.by_id) <= pipe_sessions.SESSIONS_REMEMBERED
    await until(lambda: harness.server.open_count <= 3)


@conversation(private_idle_s=0.1, max_pipes=30)
async def test_sessions_that_do_nothing_lose_their_processes_and_those_with_something_open_keep_them(harness: Harness) -> None:
    """Probes go on meanwhile, and are no use of a session."""
    calling, listening, subscribed = [await harness.open(ANY) for _ in range(3)]
    idle = [await harness.open(ANY) for _ in range(20)]
    call, stream = harness.call(calling), harness.listen(listening)
    subscription = asyncio.create_task(harness.ask(Request(b"9", "resources/subscribe", params(uri="file:///a")), subscribed))
    await until(lambda: harness.server.pipes[2].requests("resources/subscribe"))
    harness.server.pipes[2].say(Response(harness.server.pipes[2].requests("resources/subscribe")[0].id, b"{}", b""))
    await subscription

    async def probe() -> None:
        while True:
            await harness.wire.probe(1.0)
            await asyncio.sleep(0.01)

    probing = asyncio.create_task(probe())
    await until(lambda: harness.server.open_count <= 4)
    probing.cancel()
    assert [pipe.is_open for pipe in harness.server.pipes[:3]] == [True] * 3
    for session_id in idle:
        error = await refused(harness.ask(Request(b"1", "tools/list", b""), session_id))
        assert (error.fate, error.failure.reason) == (Fate.SESSION_LOST, "session_not_found")
    await until(lambda: harness.server.pipes[0].requests("tools/call"))
    harness.server.pipes[0].say(Response(harness.server.pipes[0].requests("tools/call")[0].id, b"{}", b""))
    await call
    stream.cancel()
