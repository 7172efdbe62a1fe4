"""One request and its answer without a task: the same comes of it as where it is awaited, whatever the server writes."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.untasked_exchange import UntaskedExchange
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest, ignore_events
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.upstream.http.plain_exchange import PlainExchange
from mcp_gateway.transports.upstream.http.streamable_http import StreamableHttpConversation
from tests.doubles.patience import on_loop, until
from tests.doubles.scripted_http import MAX_BYTES, MODERN, Seen, Server, ask, call, serving

RESULT = b'{"jsonrpc":"2.0","id":7,"result":{"a":1}}'
ERROR = b'{"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"no such session"}}'
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}'
HINT = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'
_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def counted(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, kind, more, len(body), body)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(data: bytes, event_id: bytes = b"") -> bytes:
    return chunk((b"id: %b\n" % event_id if event_id else b"") + b"data: %b\n\n" % data)


OK = counted(RESULT)
LARGE = b'{"jsonrpc":"2.0","id":7,"result":{"a":"%b"}}' % (b"x" * MAX_BYTES)
ANSWERS: dict[str, tuple[bytes | None, ...]] = {
    "json": (OK,),
    "json with a session": (counted(RESULT, more=b"Mcp-Session-Id: s\r\n"),),
    "json in chunks": (_CHUNKED + chunk(RESULT[:9]) + chunk(RESULT[9:]) + b"0\r\n\r\n",),
    "json to the end of the connection": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + RESULT, None),
    "json with a byte order mark": (counted(b"\xef\xbb\xbf" + RESULT),),
    "json of another type": (counted(RESULT, b"text/html"),),
    "compressed json": (counted(gzip.compress(RESULT), more=b"Content-Encoding: gzip\r\n"),),
    "an error": (counted(ERROR),),
    "an error of the client": (counted(ERROR, status=b"400 Bad Request"),),
    "an error of the server": (counted(b"oh", b"text/plain", b"500 Internal Server Error"),),
    "a token refused": (counted(b"", status=b"401 Unauthorized"),),
    "nothing": (b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",),
    "no json": (counted(b"{"),),
    "another's answer": (counted(RESULT.replace(b"7", b"8")),),
    "a batch": (counted(b"[%b,%b]" % (HINT, RESULT)),),
    "a notification alone": (counted(HINT),),
    "too large": (counted(LARGE),),
    "too large in chunks": (_CHUNKED + chunk(LARGE) + b"0\r\n\r\n",),
    "an event": (_STREAM + event(RESULT) + b"0\r\n\r\n",),
    "an event without the stream's end": (_STREAM + event(RESULT),),
    "an event with an id": (_STREAM + event(RESULT, b"5") + b"0\r\n\r\n",),
    "an error as an event": (_STREAM + event(ERROR) + b"0\r\n\r\n",),
    "events before": (_STREAM + event(b"", b"1") + event(HINT, b"2") + event(PROGRESS) + event(RESULT) + b"0\r\n\r\n",),
    "a comment before": (_STREAM + chunk(b": hello\n\n") + event(RESULT) + b"0\r\n\r\n",),
    "a stream without an answer": (_STREAM + event(HINT) + b"0\r\n\r\n",),
    "a stream of nothing": (_STREAM + b"0\r\n\r\n",),
    "a stream cut": (_STREAM + event(RESULT)[:20], None),
    "an event too large": (_STREAM + event(LARGE) + b"0\r\n\r\n",),
    "a redirect": (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", OK),
    "a redirect elsewhere": (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://x.invalid/\r\nContent-Length: 0\r\n\r\n",),
    "no http": (b"hello\r\n\r\n",),
    "cut at once": (None,),
    "cut in the head": (OK[:12], None),
    "cut in the body": (OK[:-3], None),
}  # fmt: skip


def says(*answers: bytes | None, in_pieces: bool = False) -> Any:
    """A script. None closes the connection; what stands before it is written at once with the answer before."""
    left = [*answers]

    async def script(request: Seen, writer: asyncio.StreamWriter) -> None:
        answer = left.pop(0)
        for at in range(0, len(answer or b""), 1 if in_pieces else 1 << 20):
            writer.write((answer or b"")[at : at + (1 if in_pieces else 1 << 20)])
            await asyncio.sleep(0)
        if answer is None or (left and left[0] is None):
            writer.close()

    return script


@asynccontextmanager
async def warm(*answers: bytes | None, in_pieces: bool = False) -> AsyncIterator[tuple[Server, StreamableHttpConversation]]:
    """A wire with a kept connection, and a server that has these answers to whatever comes next."""
    async with serving(says(OK, *answers, in_pieces=in_pieces)) as (server, wire):
        await ask(wire)
        yield server, wire


Outcome = UpstreamAnswer | BaseException
Events = list[tuple[Message | None, str | None]]


def begin(wire: StreamableHttpConversation, request: UpstreamRequest) -> tuple[UntaskedExchange, asyncio.Future[Outcome], Events]:
    """(the exchange, how it ends, what comes before)"""
    events: Events = []

    async def take(message: Message | None, event_id: str | None) -> None:
        events.append((message, event_id))

    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    exchange = wire.exchange(request, take)
    assert isinstance(exchange, UntaskedExchange)
    exchange.begin(ended.set_result)
    return exchange, ended, events


def told(outcome: Outcome) -> UpstreamAnswer | Failure:
    if isinstance(outcome, UpstreamAnswer):
        return outcome
    assert isinstance(outcome, UpstreamError), outcome
    return outcome.failure


PROGRESSING = Request(b"7", "tools/call", b'{"name":"x","_meta":{"progressToken":"t"}}')


@pytest.mark.parametrize("fields", [{}, {"revision": MODERN}, {"session_id": "s"}], ids=["plain", "modern", "in a session"])
@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_server_writes_comes_to_the_same_begun_or_awaited(name: str, fields: dict[str, Any]) -> None:
    async def body() -> None:
        outcomes = []
        for is_begun in (False, True):
            async with warm(*ANSWERS[name], OK, OK) as (server, wire):
                request = call(message=PROGRESSING, **fields)
                if is_begun:
                    _, ended, events = begin(wire, request)
                    outcomes.append((told(await ended), events, [seen.verb for seen in server.seen]))
                else:
                    awaited, events = await ask(wire, request)
                    outcomes.append((told(awaited), events, [seen.verb for seen in server.seen]))
        assert outcomes[0] == outcomes[1]

    on_loop(body)


WHOLE = ("json", "json with a session", "json in chunks", "an error")


@pytest.mark.parametrize(
    ("name", "in_pieces"),
    [*((name, False) for name in (*WHOLE, "an event", "an event with an id")), *((name, True) for name in WHOLE)],
)
def test_the_usual_answer_needs_no_task_however_it_comes(name: str, in_pieces: bool) -> None:
    async def body() -> None:
        async with warm(*ANSWERS[name], in_pieces=in_pieces) as (server, wire):
            made = tasks_made()
            _, ended, _ = begin(wire, call())
            assert isinstance(await ended, UpstreamAnswer)
            assert not [name for name in made if name.startswith("PlainExchange")]
            assert server.connections == 1

    on_loop(body)


def tasks_made() -> list[str]:
    """The names of the coroutines that become tasks from now on."""
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **how: Any) -> asyncio.Task[Any]:
        made.append(getattr(coroutine, "__qualname__", ""))
        return asyncio.Task(coroutine, loop=loop, **how)

    asyncio.get_running_loop().set_task_factory(factory)
    return made


def test_many_at_once_have_an_answer_each() -> None:
    async def script(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(counted(RESULT.replace(b"7", b"%d" % request.body["id"])))

    async def body() -> None:
        async with serving(script) as (server, wire):
            for _ in range(3):
                begun = [begin(wire, call(b"%d" % number)) for number in range(20)]
                outcomes = [await ended for _, ended, _ in begun]
                assert [told(each).response.id for each in outcomes] == [b"%d" % number for number in range(20)]  # type: ignore[union-attr]
            assert server.connections == 20

    on_loop(body)


# ---- a stream whose end comes later


@pytest.mark.parametrize("before", [b"", event(HINT)], ids=["without a task", "in a task"])
def test_a_connection_whose_stream_ends_a_moment_after_its_answer_serves_again(before: bytes) -> None:
    async def script(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(_STREAM + before + event(RESULT))
        await may_end.wait()
        writer.write(chunk(b": the end\n\n") + b"0\r\n\r\n")

    async def body() -> None:
        async with serving(script) as (server, wire):
            for number in range(3):
                may_end.clear()
                assert isinstance(await begin(wire, call())[1], UpstreamAnswer)
                assert server.connections == 1, number
                may_end.set()
                await until(lambda: wire._http._idle[False])

    may_end = asyncio.Event()
    on_loop(body)


def test_streams_without_an_end_keep_so_many_connections_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_gateway.transports.upstream.http.http1_client._MOST_ENDING", 2)

    async def script(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(_STREAM + event(RESULT))

    async def body() -> None:
        async with serving(script) as (server, wire):
            for _ in range(3):
                assert isinstance(await begin(wire, call())[1], UpstreamAnswer)
            await until(lambda: server.closed == 1)
            monkeypatch.setattr("mcp_gateway.transports.upstream.http.http1_client._SWEEP_S", 0.0)
            await until(lambda: server.closed == 3)
            assert not wire._http._ending

    on_loop(body)


@pytest.mark.parametrize("rest", [chunk(b": %b\n\n" % (b"x" * 70_000)), b"no chunk\r\n", b"0\r\n\r\n" + OK])
def test_a_connection_on_which_something_else_follows_is_not_kept(rest: bytes) -> None:
    async def script(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(_STREAM + event(RESULT))
        await may_go_on.wait()
        writer.write(rest)

    async def body() -> None:
        async with serving(script) as (server, wire):
            assert isinstance(await begin(wire, call())[1], UpstreamAnswer)
            may_go_on.set()
            await until(lambda: server.closed == 1)
            assert not wire._http._ending
            assert not wire._http._idle[False]

    may_go_on = asyncio.Event()
    on_loop(body)


# ---- its time, and who gives it up


@pytest.mark.parametrize("sent", [b"", OK[:12], OK[:-3], _STREAM, _STREAM + event(HINT)])
def test_its_time_ends_it_wherever_the_server_has_stopped(sent: bytes) -> None:
    async def body() -> None:
        async with warm(sent) as (server, wire):
            _, ended, _ = begin(wire, call(timeout_s=0.1))
            outcome = await ended
            assert isinstance(outcome, UpstreamError)
            assert outcome.fate is Fate.TIMED_OUT
            await until(lambda: server.closed == server.connections)

    on_loop(body)


def test_one_that_is_cancelled_at_once_is_not_sent() -> None:
    async def body() -> None:
        async with warm(OK) as (server, wire):
            exchange, ended, _ = begin(wire, call(b"8"))
            exchange.cancel()
            assert isinstance(await begin(wire, call())[1], UpstreamAnswer)
            assert not ended.done()
            assert [seen.body["id"] for seen in server.seen] == [7, 7]

    on_loop(body)


@pytest.mark.parametrize("sent", [b"", OK[:-3], _STREAM + event(HINT)])
def test_one_that_is_cancelled_ends_its_connection_and_tells_nobody(sent: bytes) -> None:
    async def body() -> None:
        async with warm(sent) as (server, wire):
            exchange, ended, events = begin(wire, call())
            await until(lambda: len(server.seen) == 2, lambda: HINT not in sent or events)
            exchange.cancel()
            exchange.cancel()
            await until(lambda: server.closed == 1)
            assert not ended.done()

    on_loop(body)


def test_one_that_is_cancelled_before_its_task_has_begun_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = PlainExchange._go_on

    def go_on_and_cancel(exchange: PlainExchange) -> None:
        go_on(exchange)
        exchange.cancel()

    async def body() -> None:
        async with warm(_STREAM + event(HINT)) as (server, wire):
            monkeypatch.setattr(PlainExchange, "_go_on", go_on_and_cancel)
            _, ended, events = begin(wire, call())
            await until(lambda: server.closed == 1)
            assert not ended.done()
            assert not events

    on_loop(body)


def test_a_header_that_cannot_be_sent_is_told_as_where_it_is_awaited() -> None:
    async def body() -> None:
        async with warm() as (server, wire):
            request = call(headers={"x": "a\r\nb"})
            awaited, _ = await ask(wire, request)
            assert told(await begin(wire, request)[1]) == told(awaited)
            assert len(server.seen) == 1

    on_loop(body)


def test_a_defect_of_ours_while_it_is_sent_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with warm(OK) as (_, wire):
            monkeypatch.setattr(wire, "ask", lambda request: {}[request])
            assert isinstance(await begin(wire, call())[1], UpstreamAnswer)

    on_loop(body)


def test_a_stream_and_a_notification_are_no_plain_exchanges() -> None:
    async def body() -> None:
        async with warm() as (_, wire):
            stream = wire.exchange(call(on_open=lambda: None), ignore_events)
            assert not isinstance(stream, UntaskedExchange)
            stream.close()

    on_loop(body)
