"""Tests of sessions and stateless requests over connections that are their own session, with scripted servers."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.pipes import pipe_conversation
from mcp_gateway.transports.upstream.pipes.message_pipe import TooLarge
from mcp_gateway.transports.upstream.pipes.pipe_conversation import PipeConversation
from mcp_gateway.transports.upstream.pipes.pipe_pool import CLOSING_AT_ONCE
from tests.doubles.scripted_pipe import INITIALIZE_RESULT, ScriptedServer, settled

LEGACY, MODERN = "2025-11-25", "2026-07-28"
ANY = {"sampling": {}}
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
INITIALIZED = Notification("notifications/initialized", b"")


def params(**values: Any) -> bytes:
    return json.dumps(values).encode()


class Harness:
    """A conversation with a scripted server, and shortcuts for what clients do. protocol: as configured, or "auto"."""

    def __init__(self, server: ScriptedServer, protocol: str = LEGACY, **options: Any) -> None:
        self.server = server
        self.era = ServerEra(protocol)
        self.wire = PipeConversation("stdio:x#0", server, **{"max_pipes": 3, "era": self.era, "longest_call_s": 60.0, **options})
        self.events: list[Message | None] = []
        self.opened: list[str] = []  # sessions whose streams are open

    async def on_event(self, message: Message | None, event_id: str | None) -> None:
        self.events.append(message)

    async def open(self, capabilities: dict[str, Any] | None = None, revision: str = LEGACY, request_id: bytes = b"0") -> str:
        content = params(protocolVersion=revision, capabilities=capabilities or {}, clientInfo={"name": "c", "version": "1"})
        answer = await self.ask(Request(request_id, "initialize", content))
        assert answer.session_id is not None
        await self.tell(INITIALIZED, answer.session_id)
        return answer.session_id

    async def ask(
        self, message: Request, session_id: str | None = None, revision: str = LEGACY, timeout_s: float | None = 5.0, **how: Any
    ) -> UpstreamAnswer:
        request = UpstreamRequest(
            kind=how.pop("kind", RequestKind.REQUEST),
            message=message,
            revision=revision,
            session_id=session_id,
            timeout_s=timeout_s,
        )
        return await self.wire.exchange(request, how.pop("on_event", self.on_event))

    def call(self, session_id: str | None, request_id: bytes = b"1", **how: Any) -> asyncio.Task[UpstreamAnswer]:
        meta = how.pop("meta", {"progressToken": "t"})
        return asyncio.create_task(self.ask(Request(request_id, "tools/call", params(_meta=meta)), session_id, **how))

    async def tell(self, message: Notification | Response, session_id: str | None) -> UpstreamAnswer:
        request = UpstreamRequest(
            kind=RequestKind.MESSAGE, message=message, revision=LEGACY, session_id=session_id, timeout_s=5.0
        )
        return await self.wire.exchange(request, self.on_event)

    def listen(self, session_id: str) -> asyncio.Task[UpstreamAnswer]:
        request = UpstreamRequest(
            kind=RequestKind.STREAM, revision=LEGACY, session_id=session_id, on_open=lambda: self.opened.append(session_id)
        )
        return asyncio.create_task(self.wire.exchange(request, self.on_event))

    async def terminate(self, session_id: str) -> None:
        await self.wire.exchange(
            UpstreamRequest(kind=RequestKind.TERMINATE, revision=LEGACY, session_id=session_id), self.on_event
        )


def conversation(**options: Any) -> Callable[[Callable[[Harness], Awaitable[None]]], Callable[[], None]]:
    """Run the test with a harness on a loop of its own; afterwards nothing is left open and no task runs."""

    def decorate(test: Callable[[Harness], Awaitable[None]]) -> Callable[[], None]:
        def run() -> None:
            async def bounded() -> None:
                async with asyncio.timeout(20):
                    harness = Harness(options.pop("server", None) or ScriptedServer(), **options)
                    await test(harness)
                    await harness.wire.close()
                    assert harness.server.open_count == 0
                    await settled(lambda: len(asyncio.all_tasks()) == 1, "a task is left")

            asyncio.run(bounded())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


async def refused(exchange: Awaitable[Any]) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await exchange
    return caught.value


# ---- sessions


@conversation()
async def test_sessions_whose_clients_cannot_be_asked_share_one_connection_and_one_handshake(harness: Harness) -> None:
    sessions = [await harness.open(request_id=b'"%d"' % number) for number in range(5)]
    assert len(set(sessions)) == 5
    (pipe,) = harness.server.pipes
    assert len(pipe.requests("initialize")) == 1
    assert len(pipe.notifications("notifications/initialized")) == 1
    calls = [harness.call(session_id) for session_id in sessions]
    await settled(lambda: len(pipe.requests("tools/call")) == 5)
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
    await settled(lambda: all(pipe.requests("tools/call") for pipe in pipes))
    question = Request(b"9", "elicitation/create", b"{}")
    pipes[1].say(question)
    await settled(lambda: harness.events == [question])
    await harness.tell(Response(b"9", b'{"action":"decline"}', b""), first)
    assert not pipes[0].responses(), "the first client was not asked"
    await harness.tell(Response(b"9", b'{"action":"accept"}', b""), second)
    assert pipes[1].responses() == [Response(b"9", b'{"action":"accept"}', b"")]
    for task, pipe in zip(calls, pipes, strict=True):
        pipe.say(Response(pipe.requests("tools/call")[0].id, b"{}", b""))
        await task


@conversation()
async def test_a_client_that_says_very_much_of_itself_has_a_connection_of_its_own(harness: Harness) -> None:
    """So that what is kept of sessions that share one is bounded."""
    for size in (8_000, 8_000, 8_192):
        await harness.open({"experimental": {"x": {"y": "z" * size}}})
    assert len(harness.server.pipes) == 2
    assert sum(len(session.initialize) for session in harness.wire._sessions.values()) < 2 * 8_192


@conversation()
async def test_a_refused_handshake_is_the_servers_answer_and_leaves_no_connection(harness: Harness) -> None:
    harness.server.answers["initialize"] = b'{"code":-32602,"message":"no"}'
    for capabilities in ({}, ANY):
        content = params(protocolVersion=LEGACY, capabilities=capabilities)
        answer = await harness.ask(Request(b'"i"', "initialize", content))
        assert answer == UpstreamAnswer(200, Response(b'"i"', b"", b'{"code":-32602,"message":"no"}'))
    await settled(lambda: harness.server.open_count == 0)
    harness.server.answers["initialize"] = INITIALIZE_RESULT
    await harness.open()


@conversation()
async def test_a_session_that_begins_to_keep_state_moves_to_a_connection_of_its_own_with_its_stream(harness: Harness) -> None:
    session_id, other = await harness.open(), await harness.open()
    stream, other_stream = harness.listen(session_id), harness.listen(other)
    await settled(lambda: harness.opened == [session_id, other])
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
    await settled(lambda: harness.events == [message])
    shared.say(Notification("notifications/tools/list_changed", b""))
    await settled(lambda: len(harness.events) == 2)
    await harness.terminate(session_id)
    assert (await stream) == UpstreamAnswer(200, None)
    assert not other_stream.done()


@conversation()
async def test_a_call_that_began_before_its_session_moved_can_be_cancelled(harness: Harness) -> None:
    session_id = await harness.open()
    call = asyncio.ensure_future(harness.ask(Request(b"7", "tools/call", b"{}"), session_id))
    await settled(lambda: bool(harness.server.pipes[0].requests("tools/call")))
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
    await settled(lambda: [pipe.is_open for pipe in harness.server.pipes] == [False, True])


@conversation()
async def test_ending_a_session_closes_its_own_connection_and_not_the_shared_one(harness: Harness) -> None:
    shared, private = await harness.open(), await harness.open(ANY)
    for session_id in (shared, private, shared, "unknown"):
        await harness.terminate(session_id)
    await settled(lambda: [pipe.is_open for pipe in harness.server.pipes] == [True, False])
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


# ---- the end of a connection


@conversation()
async def test_when_the_server_leaves_its_open_calls_fail_and_its_sessions_are_lost(harness: Harness) -> None:
    session_id = await harness.open(ANY)
    call, stream = harness.call(session_id), harness.listen(session_id)
    (pipe,) = harness.server.pipes
    await settled(lambda: pipe.requests("tools/call"))
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


# ---- cancellation and deadlines


@conversation()
async def test_a_cancelled_call_tells_the_server_by_the_id_it_knows_and_ends(harness: Harness) -> None:
    sessions = [await harness.open(), await harness.open()]
    calls = [harness.call(session_id) for session_id in sessions]
    (pipe,) = harness.server.pipes
    await settled(lambda: len(pipe.requests("tools/call")) == 2)
    ids = [json.loads(request.id) for request in pipe.requests("tools/call")]
    # 1. Its client takes it back.
    await harness.tell(Notification("notifications/cancelled", params(requestId=1)), sessions[1])
    assert pipe.notifications("notifications/cancelled") == [{"requestId": ids[1]}]
    cancelled = await refused(calls[1])
    assert (cancelled.failure.text, cancelled.fate.is_verdict) == ("the client has cancelled the request", False)
    # 2. Its client goes away.
    calls[0].cancel()
    await settled(lambda: len(pipe.notifications("notifications/cancelled")) == 2)
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
    await settled(lambda: pipe.notifications("notifications/cancelled"))


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


@conversation()
async def test_a_handshake_that_is_never_answered_ends_with_its_connection(harness: Harness) -> None:
    del harness.server.answers["initialize"]
    content = params(protocolVersion=LEGACY, capabilities=ANY)
    error = await refused(harness.ask(Request(b"1", "initialize", content), timeout_s=0.05))
    assert error.failure.reason == "upstream_timeout"
    await settled(lambda: harness.server.pipes[0].is_closed)


@conversation()
async def test_a_server_that_leaves_during_the_handshake_has_failed_and_no_session_is_lost(harness: Harness) -> None:
    for capabilities, method in (({}, "initialize"), (ANY, "initialize"), ({}, "notifications/initialized")):
        harness.server.ends_before = method
        content = params(protocolVersion=LEGACY, capabilities=capabilities)
        error = await refused(harness.ask(Request(b"1", "initialize", content)))
        assert (error.failure.reason, error.fate.was_sent, error.fate is Fate.SESSION_LOST) == ("upstream_failed", False, False)
        assert error.failure.text == "the server has left"


# ---- bounds


@conversation(max_pipes=3)
async def test_ten_thousand_sessions_opened_and_never_closed_leave_a_bounded_number_of_connections(harness: Harness) -> None:
    first = await harness.open(ANY)
    for _ in range(1_000):
        await harness.open(ANY)
        assert harness.server.open_count <= 3 + CLOSING_AT_ONCE
    await settled(lambda: harness.server.open_count == 3)
    assert (await refused(harness.ask(Request(b"1", "tools/list", b""), first))).fate is Fate.SESSION_LOST
    for _ in range(9_000):
        await harness.open()
    assert len(harness.wire._sessions) <= pipe_conversation.SESSIONS_REMEMBERED
    await settled(lambda: harness.server.open_count <= 3)


@conversation(max_pipes=2)
async def test_the_least_recently_used_connection_makes_room_and_a_busy_one_never(harness: Harness) -> None:
    used, idle = await harness.open(ANY), await harness.open(ANY)
    call = harness.call(used)
    await settled(lambda: harness.server.pipes[0].requests("tools/call"))
    newest = await harness.open(ANY)
    assert (await refused(harness.ask(Request(b"1", "tools/list", b""), idle))).fate is Fate.SESSION_LOST
    other = harness.call(newest)
    await settled(lambda: harness.server.pipes[2].requests("tools/call"))
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
    await settled(lambda: [pipe.is_open for pipe in harness.server.pipes] == [False, True])
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
    await settled(lambda: pipe.requests("tools/call"))
    for _ in range(1_000):
        pipe.say(Notification("notifications/message", params(level="info", data="x")))
    pipe.say(Response(pipe.requests("tools/call")[0].id, b"{}", b""))
    await settled(lambda: 700 < pipe._incoming.qsize() < 750)
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
    await settled(lambda: pipe.requests("tools/call"))
    for step in range(1_000):
        pipe.say(Notification("notifications/progress", params(progressToken=2, progress=step)))
    fast = harness.call(sessions[1])
    await settled(lambda: len(pipe.requests("tools/call")) == 2)
    pipe.say(Response(pipe.requests("tools/call")[1].id, b"{}", b""))
    await fast
    slow.cancel()


async def three_calls(harness: Harness) -> tuple[Any, list[Any], list[bytes]]:
    """(the pipe that they share, the calls, their ids on it)."""
    session_id = await harness.open()
    (pipe,) = harness.server.pipes
    calls = [harness.call(session_id, request_id) for request_id in (b"1", b"2", b"3")]
    await settled(lambda: len(pipe.requests("tools/call")) == 3)
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
    await settled(lambda: pipe.requests("tools/call"))
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
        await settled(lambda: pipe.requests("tools/call"))
        for data in noise:
            pipe.say(data)
        first.cancel()
        call = harness.call(session_id)
        await settled(lambda: len(pipe.requests("tools/call")) == 2)
        pipe.say(Response(pipe.requests("tools/call")[1].id, b'{"fine":1}', b""))
        assert (await call).response == Response(b"1", b'{"fine":1}', b"")

    check()


# ---- eras


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
    pipe_conversation.DISCOVER_TIMEOUT_S, kept_s = 0.05, pipe_conversation.DISCOVER_TIMEOUT_S  # type: ignore[misc]
    try:
        assert (await refused(harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN))).fate is Fate.UNSUPPORTED
    finally:
        pipe_conversation.DISCOVER_TIMEOUT_S = kept_s  # type: ignore[misc]
    assert harness.era.speaks_modern is False


@conversation(protocol="auto")
async def test_a_server_that_leaves_on_discover_and_on_a_handshake_has_no_era(harness: Harness) -> None:
    harness.server.open_error = "cannot be started"
    error = await refused(harness.ask(Request(b"1", "tools/list", b"{}"), revision=MODERN))
    assert (error.fate is Fate.UNSUPPORTED, error.fate.was_sent, error.failure.text) == (False, False, "cannot be started")
    assert harness.era.speaks_modern is None


@conversation(protocol=MODERN)
async def test_a_subscription_is_a_stream_that_its_server_may_end_either_way(harness: Harness) -> None:
    for number, is_graceful in enumerate((True, False), start=1):
        message = Request(b"77", "subscriptions/listen", b"{}")
        task = asyncio.create_task(harness.ask(message, revision=MODERN, kind=RequestKind.STREAM, timeout_s=None))
        await settled(lambda: len(harness.server.pipes) == 1)
        (pipe,) = harness.server.pipes
        await settled(lambda: len(pipe.requests("subscriptions/listen")) == number)  # noqa: B023
        request_id = json.loads(pipe.requests("subscriptions/listen")[-1].id)
        meta = {"io.modelcontextprotocol/subscriptionId": request_id}
        pipe.say(Notification("notifications/subscriptions/acknowledged", params(_meta=meta)))
        await settled(lambda: len(harness.events) == number)  # noqa: B023
        if is_graceful:
            pipe.say(Response(b"%d" % request_id, params(_meta=meta), b""))
            assert (await task).response == Response(b"77", params(_meta=meta), b"")
        else:
            pipe.say(Notification("notifications/cancelled", params(requestId=request_id)))
            assert (await task) == UpstreamAnswer(200, None)


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


# ---- servers that start slowly


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """`initialize` follows soon where `server/discover` stays without an answer."""
    monkeypatch.setattr(pipe_conversation, "DISCOVER_TIMEOUT_S", 0.02)


def silent_server() -> ScriptedServer:
    server = ScriptedServer()
    server.answers.clear()
    return server


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
        await settled(lambda: pipe.requests("initialize"))
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
        await settled(lambda: harness.era.speaks_modern is (era == "modern"))
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
        await settled(lambda: harness.server.pipes[0].is_closed)
        error = await refused(harness.wire.probe(0.1))
        assert (error.fate, len(harness.server.pipes)) == (Fate.UNREACHABLE, 2)
        harness.server.pipes[1].say(
            Response(harness.server.pipes[1].requests("server/discover")[0].id, b'{"supportedVersions":["2026-07-28"]}', b"")
        )
        await settled(lambda: harness.era.speaks_modern)

    monkeypatched = pytest.MonkeyPatch()
    monkeypatched.setattr(pipe_conversation, "OPEN_TIMEOUT_S", 0.3)
    try:
        check()
    finally:
        monkeypatched.undo()


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
    await settled(lambda: len(harness.server.pipes) == 3 and all(pipe.requests("initialize") for pipe in harness.server.pipes))
    for pipe in harness.server.pipes:
        pipe.say(Response(pipe.requests("initialize")[0].id, INITIALIZE_RESULT, b""))
    sessions = [(await task).session_id for task in (again, twin, other)]
    assert len(set(sessions)) == 3
    assert harness.wire._sessions[sessions[0] or ""].pipe._pipe is harness.server.pipes[0]


@conversation(start_timeout_s=60.0, server=silent_server(), max_pipes=1)
async def test_what_starts_for_nobody_is_kept_for_a_while_and_makes_room_at_once(harness: Harness) -> None:
    for capabilities in (ANY, {"roots": {}}):
        message = Request(b"1", "initialize", params(protocolVersion=LEGACY, capabilities=capabilities))
        assert (await refused(harness.ask(message, timeout_s=0.05))).fate is Fate.STARTING
    await settled(lambda: [pipe.is_closed for pipe in harness.server.pipes] == [True, False])
    (start,) = harness.wire._starts
    assert start.timer is not None
    assert start.timer.when() <= asyncio.get_running_loop().time() + pipe_conversation.UNCLAIMED_S
    harness.wire._end_start(start)
    await settled(lambda: harness.server.open_count == 0)


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
    await settled(lambda: harness.server.pipes[0].is_closed)
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
    await settled(lambda: pipe.requests("tools/call"))
    await harness.wire.probe(1.0)
    assert len(pipe.requests("ping")) == 1, "busy for its own session: its caller's deadline judges it"
    call.cancel()


@conversation(private_idle_s=0.1, max_pipes=30)
async def test_sessions_that_do_nothing_lose_their_processes_and_those_with_something_open_keep_them(harness: Harness) -> None:
    """Probes go on meanwhile, and are no use of a session."""
    calling, listening, subscribed = [await harness.open(ANY) for _ in range(3)]
    idle = [await harness.open(ANY) for _ in range(20)]
    call, stream = harness.call(calling), harness.listen(listening)
    subscription = asyncio.create_task(harness.ask(Request(b"9", "resources/subscribe", params(uri="file:///a")), subscribed))
    await settled(lambda: harness.server.pipes[2].requests("resources/subscribe"))
    harness.server.pipes[2].say(Response(harness.server.pipes[2].requests("resources/subscribe")[0].id, b"{}", b""))
    await subscription

    async def probe() -> None:
        while True:
            await harness.wire.probe(1.0)
            await asyncio.sleep(0.01)

    probing = asyncio.create_task(probe())
    await settled(lambda: harness.server.open_count <= 4)
    probing.cancel()
    assert [pipe.is_open for pipe in harness.server.pipes[:3]] == [True] * 3
    for session_id in idle:
        error = await refused(harness.ask(Request(b"1", "tools/list", b""), session_id))
        assert (error.fate, error.failure.reason) == (Fate.SESSION_LOST, "session_not_found")
    await settled(lambda: harness.server.pipes[0].requests("tools/call"))
    harness.server.pipes[0].say(Response(harness.server.pipes[0].requests("tools/call")[0].id, b"{}", b""))
    await call
    stream.cancel()
