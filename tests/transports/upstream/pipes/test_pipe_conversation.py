"""Tests of exchanges over connections that are their own session, with scripted servers."""

import asyncio
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.pipes.message_pipe import TooLarge
from tests.doubles.patience import until
from tests.doubles.pipe_harness import ANY, MODERN, Harness, conversation, params, refused

# What resembles messages. Of the ids 1 was answered, 2 is open, 3 will be; of the tokens 2 is given.
FRAGMENTS = [
    *(
        b'{"jsonrpc":"2.0","id":%b,"%b":{}}' % (request_id, member)
        for request_id in (b"null", b"1", b'"x"', b"[]", b"9e99")
        for member in (b"result", b"error", b"method", b"params")
    ),
    *(
        b'{"jsonrpc":"2.0","method":"notifications/%b","params":%b}' % (method, content)
        for method in (b"progress", b"cancelled", b"message", b"tools/list_changed")
        for content in (b"[]", b"{}", b'{"progressToken":2}', b'{"progressToken":{}}', b'{"requestId":2}', b'{"_meta":3}')
    ),
    *(b'{"jsonrpc":"2.0","id":%d,"method":"sampling/createMessage"}' % number for number in range(3)),
]


# ---- the end of a connection


@conversation()
async def test_when_the_server_leaves_its_open_calls_fail_and_its_sessions_are_lost(harness: Harness) -> None:
    session_id = await harness.open(ANY)
    call, stream = harness.call(session_id), harness.listen(session_id)
    (pipe,) = harness.server.pipes
    await until(lambda: pipe.requests("tools/call"))
    pipe.end("the server's process was ended by SIGKILL")
    error = await refused(call)
    assert (error.failure.reason, error.failure.text) == ("upstream_failed", "the server's process was ended by SIGKILL")
    assert (error.fate.was_sent, error.fate.is_fault, error.fate is Fate.SESSION_LOST) == (True, True, False)
    assert (await refused(stream)).failure.text == "the server's process was ended by SIGKILL"
    error = await refused(harness.ask(Request(b"1", "tools/list", b""), session_id))
    assert (error.fate.was_sent, error.fate is Fate.SESSION_LOST) == (False, True)
    await harness.open(ANY)
    assert harness.server.open_count == 1


@conversation(protocol=MODERN)
async def test_a_stateless_request_that_was_not_sent_goes_over_another_connection(harness: Harness) -> None:
    harness.server.answers["tools/list"] = b'{"tools":[]}'
    await harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN)
    harness.server.pipes[0]._end_text = "gone"  # what is written now meets a closed connection that has not been noticed
    answer = await harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN)
    assert answer.response == Response(b"1", b'{"tools":[]}', b"")
    assert len(harness.server.pipes) == 2
    harness.server.pipes[0].end("gone")


# ---- cancellation and deadlines


@conversation()
async def test_a_cancelled_call_tells_the_server_by_the_id_it_knows_and_ends(harness: Harness) -> None:
    sessions = [await harness.open(), await harness.open()]
    calls = [harness.call(session_id) for session_id in sessions]
    (pipe,) = harness.server.pipes
    await until(lambda: len(pipe.requests("tools/call")) == 2)
    ids = [json.loads(request.id) for request in pipe.requests("tools/call")]
    # 1. Its client takes it back.
    await harness.tell(Notification("notifications/cancelled", params(requestId=1)), sessions[1])
    assert pipe.notifications("notifications/cancelled") == [{"requestId": ids[1]}]
    cancelled = await refused(calls[1])
    assert (cancelled.failure.text, cancelled.fate.is_verdict) == ("the client has cancelled the request", False)
    # 2. Its client goes away.
    calls[0].cancel()
    await until(lambda: len(pipe.notifications("notifications/cancelled")) == 2)
    assert pipe.notifications("notifications/cancelled")[1] == {"requestId": ids[0], "reason": "the client has gone"}
    # 3. A late answer does no harm.
    for request in pipe.requests("tools/call"):
        pipe.say(Response(request.id, b"{}", b""))
    await harness.open()


@conversation()
async def test_a_call_past_its_deadline_is_cancelled_at_the_server(harness: Harness) -> None:
    session_id = await harness.open()
    error = await refused(harness.call(session_id, timeout_s=0.05))
    assert (error.failure.reason, error.fate.was_sent) == ("upstream_timeout", True)
    (pipe,) = harness.server.pipes
    await until(lambda: pipe.notifications("notifications/cancelled"))


@conversation()
async def test_a_server_that_reads_nothing_is_told_of_as_such_and_the_call_was_not_sent(harness: Harness) -> None:
    session_id = await harness.open()
    (pipe,) = harness.server.pipes
    pipe.reads.clear()
    for _ in range(3):
        error = await refused(harness.call(session_id, timeout_s=0.02))
        assert (error.failure.reason, error.fate.was_sent) == ("upstream_timeout", False)
    pipe.reads.set()
    assert not pipe.requests("tools/call"), "nobody waits for them any more"


# ---- bounds


@conversation(max_pipes=2)
async def test_the_least_recently_used_connection_makes_room_and_a_busy_one_never(harness: Harness) -> None:
    used, idle = await harness.open(ANY), await harness.open(ANY)
    call = harness.call(used)
    await until(lambda: harness.server.pipes[0].requests("tools/call"))
    newest = await harness.open(ANY)
    assert (await refused(harness.ask(Request(b"1", "tools/list", b""), idle))).fate is Fate.SESSION_LOST
    other = harness.call(newest)
    await until(lambda: harness.server.pipes[2].requests("tools/call"))
    error = await refused(harness.open(ANY))
    assert (error.failure.reason, error.fate.was_sent, error.fate.is_fault) == ("pool_exhausted", False, False)
    for task in (call, other):
        task.cancel()


@conversation(idle_s=0.0)
async def test_a_connection_that_nobody_uses_is_closed_unless_its_client_listens(harness: Harness) -> None:
    idle, listened = await harness.open(ANY), await harness.open(ANY)
    stream = harness.listen(listened)
    await asyncio.sleep(0)
    harness.wire._pipes.sweep()
    await until(lambda: [pipe.is_open for pipe in harness.server.pipes] == [False, True])
    assert (await refused(harness.ask(Request(b"1", "tools/list", b""), idle))).fate is Fate.SESSION_LOST
    stream.cancel()


@conversation()
async def test_a_slow_client_stops_the_reading_of_its_own_connection_alone(harness: Harness) -> None:
    session_id = await harness.open(ANY)
    may_read = asyncio.Event()
    seen: list[Message | None] = []

    async def slowly(message: Message | None, event_id: str | None) -> None:
        await may_read.wait()
        seen.append(message)

    call = harness.call(session_id, on_event=slowly)
    (pipe,) = harness.server.pipes
    await until(lambda: pipe.requests("tools/call"))
    for _ in range(1_000):
        pipe.say(Notification("notifications/message", params(level="info", data="x")))
    pipe.say(Response(pipe.requests("tools/call")[0].id, b"{}", b""))
    await until(lambda: 700 < pipe._incoming.qsize() < 750)
    may_read.set()
    await call
    assert len(seen) == 1_000


@conversation()
async def test_on_a_shared_connection_a_slow_client_loses_progress_and_nobody_waits_for_it(harness: Harness) -> None:
    sessions = [await harness.open(), await harness.open()]

    async def never(message: Message | None, event_id: str | None) -> None:
        await asyncio.Event().wait()

    slow = harness.call(sessions[0], on_event=never)
    (pipe,) = harness.server.pipes
    await until(lambda: pipe.requests("tools/call"))
    for step in range(1_000):
        pipe.say(Notification("notifications/progress", params(progressToken=2, progress=step)))
    fast = harness.call(sessions[1])
    await until(lambda: len(pipe.requests("tools/call")) == 2)
    pipe.say(Response(pipe.requests("tools/call")[1].id, b"{}", b""))
    await fast
    slow.cancel()


async def three_calls(harness: Harness) -> tuple[Any, list[Any], list[bytes]]:
    """(the pipe that they share, the calls, their ids on it)."""
    session_id = await harness.open()
    (pipe,) = harness.server.pipes
    calls = [harness.call(session_id, request_id) for request_id in (b"1", b"2", b"3")]
    await until(lambda: len(pipe.requests("tools/call")) == 3)
    return pipe, calls, [request.id for request in pipe.requests("tools/call")]


@conversation()
async def test_an_answer_that_is_too_large_fails_its_own_call_alone(harness: Harness) -> None:
    pipe, calls, (python, javascript, other) = await three_calls(harness)
    pipe.say(TooLarge(b'{"jsonrpc":"2.0","id":%b,"result":{"x":"' % python, b'xxx","id":999}}'))
    pipe.say(TooLarge(b'{"result":{"id":7,"x":"', b'xxx"},"jsonrpc":"2.0","id":%b}' % javascript))
    pipe.say(TooLarge(b'{"jsonrpc":"2.0","method":"x"', b"}}"))
    for call in calls[:2]:
        assert "larger than" in (await refused(call)).failure.text
    pipe.say(Response(other, b"{}", b""))
    await calls[2]


@conversation()
async def test_an_answer_that_is_malformed_fails_its_own_call_at_once(harness: Harness) -> None:
    pipe, calls, (python, javascript, other) = await three_calls(harness)
    pipe.say(b'{"jsonrpc":"2.0","id":%b,"result":{"x":NaN}}' % python)
    pipe.say(b'{"result":{"x":"\xff"},"jsonrpc":"2.0","id":%b}' % javascript)
    pipe.say(b'{"jsonrpc":"2.0","id":%b,"method":"ping","params":{"x":NaN}}' % other)  # its own question, under its own id
    for call in calls[:2]:
        assert "malformed answer" in (await refused(call)).failure.text
    pipe.say(Response(other, b"{}", b""))
    await calls[2]


@conversation()
async def test_what_is_no_message_is_skipped_and_batches_are_taken_apart(harness: Harness) -> None:
    """Source: MCP 2025-03-26, basic/index, "Batching": implementations must be able to receive batches."""
    session_id = await harness.open()
    (pipe,) = harness.server.pipes
    call = harness.call(session_id)
    await until(lambda: pipe.requests("tools/call"))
    for noise in (b"{", b"[", b"[1]", b"[]", b"\xff\xfe", b'{"a":1}', b"{}" * 10, b"[" * 100_000):
        pipe.say(noise)
    answer = b'{"jsonrpc":"2.0","id":%b,"result":{}}' % pipe.requests("tools/call")[0].id
    pipe.say(b'[{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}},%b]' % answer)
    await call
    assert len(harness.events) == 1


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(FRAGMENTS)), max_size=30))
@settings(max_examples=150, deadline=None)
def test_whatever_bytes_a_server_sends_the_next_call_works(noise: list[bytes]) -> None:
    @conversation()
    async def check(harness: Harness) -> None:
        session_id = await harness.open(ANY)
        first = harness.call(session_id)
        (pipe,) = harness.server.pipes
        await until(lambda: pipe.requests("tools/call"))
        for data in noise:
            pipe.say(data)
        first.cancel()
        call = harness.call(session_id)
        await until(lambda: len(pipe.requests("tools/call")) == 2)
        pipe.say(Response(pipe.requests("tools/call")[1].id, b'{"fine":1}', b""))
        assert (await call).response == Response(b"1", b'{"fine":1}', b"")

    check()


# ---- streams


@conversation(protocol=MODERN)
async def test_a_subscription_is_a_stream_that_its_server_may_end_either_way(harness: Harness) -> None:
    for number, is_graceful in enumerate((True, False), start=1):
        message = Request(b"77", "subscriptions/listen", b"{}")
        task = asyncio.create_task(harness.ask(message, revision=MODERN, kind=RequestKind.STREAM, timeout_s=None))
        await until(lambda: len(harness.server.pipes) == 1)
        (pipe,) = harness.server.pipes
        await until(lambda: len(pipe.requests("subscriptions/listen")) == number)  # noqa: B023
        request_id = json.loads(pipe.requests("subscriptions/listen")[-1].id)
        meta = {"io.modelcontextprotocol/subscriptionId": request_id}
        pipe.say(Notification("notifications/subscriptions/acknowledged", params(_meta=meta)))
        await until(lambda: len(harness.events) == number)  # noqa: B023
        if is_graceful:
            pipe.say(Response(b"%d" % request_id, params(_meta=meta), b""))
            assert (await task).response == Response(b"77", params(_meta=meta), b"")
        else:
            pipe.say(Notification("notifications/cancelled", params(requestId=request_id)))
            assert (await task) == UpstreamAnswer(200, None)


# ---- probes


@conversation()
async def test_a_probe_opens_one_connection_and_pings_it_from_then_on(harness: Harness) -> None:
    for _ in range(3):
        await harness.wire.probe(1.0)
    (pipe,) = harness.server.pipes
    assert len(pipe.requests("ping")) == 3
    await harness.open()
    assert len(pipe.requests("initialize")) == 1, "a first client finds it ready"


@conversation()
async def test_a_server_that_does_not_answer_pings_is_a_problem_and_replaced_once_it_is_wedged(harness: Harness) -> None:
    await harness.wire.probe(1.0)
    del harness.server.answers["ping"]
    for _ in range(3):
        error = await refused(harness.wire.probe(0.05))
        assert (error.failure.reason, error.failure.text) == ("upstream_timeout", "the server did not answer in time")
    await until(lambda: harness.server.pipes[0].is_closed)
    harness.server.answers["ping"] = b"{}"
    await harness.wire.probe(1.0)
    assert len(harness.server.pipes) == 2


@pytest.mark.parametrize(("longest_call_s", "is_replaced"), [(60.0, False), (0.01, True)])
def test_a_busy_server_may_miss_pings_but_not_be_silent_for_longer_than_any_call(
    longest_call_s: float, is_replaced: bool
) -> None:
    @conversation(longest_call_s=longest_call_s)
    async def check(harness: Harness) -> None:
        session_id = await harness.open()
        del harness.server.answers["ping"]
        call = harness.call(session_id)
        for _ in range(4):
            if not harness.server.pipes[0].is_closed:
                assert (await refused(harness.wire.probe(0.05))).failure.reason == "upstream_timeout"
                await asyncio.sleep(0.01)
        assert harness.server.pipes[0].is_closed == is_replaced
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    check()


@conversation(max_pipes=1)
async def test_a_probe_takes_no_connection_from_a_session(harness: Harness) -> None:
    session_id = await harness.open(ANY)
    await harness.wire.probe(1.0)
    (pipe,) = harness.server.pipes
    assert len(pipe.requests("ping")) == 1
    call = harness.call(session_id)
    await until(lambda: pipe.requests("tools/call"))
    await harness.wire.probe(1.0)
    assert len(pipe.requests("ping")) == 1, "busy for its own session: its caller's deadline judges it"
    call.cancel()
