"""Streamable HTTP towards servers that follow a script: every kind of answer, and every way not to give one."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from mcp_gateway.transports.protocol.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.transport import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.upstream.streamable_http import StreamableHttpConversation, StreamableHttpUpstream
from tests.doubles.ports import free_port
from tests.doubles.running_cell import cell_settings

LEGACY, MODERN = "2025-11-25", "2026-07-28"
MAX_BYTES = 10_000


@attrs.frozen
class Seen:
    """One request as the server saw it; header names in lower case."""

    verb: str
    headers: dict[str, str]
    body: Any

    @property
    def method(self) -> str:
        return str(self.body.get("method", ""))


class Server:
    """An HTTP/1.1 server on the test's loop; the script writes the answer. closed: connections that the client has closed."""

    def __init__(self, script: Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._script = script
        self.seen: list[Seen] = []
        self.connections = 0
        self.closed = 0
        self.url = ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answering: asyncio.Future[None] | None = None
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Seen(first.split()[0], headers, json.loads(body) if body else {})
                self.seen.append(request)
                answering = asyncio.ensure_future(self._script(request, writer))
                gone = asyncio.ensure_future(_until_closed(reader))
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not answering.done():
                    break
                gone.cancel()
                await answering
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if answering is not None:
                answering.cancel()
            self.closed += 1
            writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Wait for the client's end of the connection, without taking a byte of its next request."""
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(
    script: Callable[[Seen, asyncio.StreamWriter], Awaitable[None]], **backend: Any
) -> AsyncIterator[tuple[Server, StreamableHttpConversation]]:
    server = Server(script)
    listening = await asyncio.start_server(server.converse, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
    wire = conversation(server.url, **backend)
    try:
        yield server, wire
    finally:
        await wire.close()
        listening.close()


def conversation(url: str, **backend: Any) -> StreamableHttpConversation:
    (settings,) = cell_settings([{"name": "b", "replicas": [url], **backend}]).backends
    wire = StreamableHttpUpstream().connect(settings, 0, MAX_BYTES)
    assert isinstance(wire, StreamableHttpConversation)
    return wire


def on_loop(body: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await body()

    asyncio.run(run())


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


def call(request_id: bytes = b"7", revision: str = LEGACY, timeout_s: float = 5.0, **fields: Any) -> UpstreamRequest:
    message = fields.pop("message", Request(request_id, "tools/call", b'{"name":"x"}'))
    return UpstreamRequest(**{"kind": "request", "message": message, "revision": revision, "timeout_s": timeout_s, **fields})


async def ask(
    wire: StreamableHttpConversation, request: UpstreamRequest | None = None
) -> tuple[UpstreamAnswer | UpstreamError, list[tuple[Message | None, str | None]]]:
    """(how it ended, what came before)"""
    events: list[tuple[Message | None, str | None]] = []

    async def take(message: Message | None, event_id: str | None) -> None:
        events.append((message, event_id))

    try:
        return await wire.exchange(request or call(), take), events
    except UpstreamError as error:
        return error, events


async def refused(wire: StreamableHttpConversation, request: UpstreamRequest | None = None) -> UpstreamError:
    ended, _ = await ask(wire, request)
    assert isinstance(ended, UpstreamError), ended
    return ended


def reply(
    body: bytes | dict[str, Any] = b"", status: str = "200 OK", content_type: str = "application/json", **headers: str
) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    """A script that gives this answer to everything; a dict gets the request's id."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        content = body
        if isinstance(content, dict):
            content = json.dumps({"jsonrpc": "2.0", "id": seen.body.get("id"), **content}).encode()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}"]
        lines += [f"Content-Type: {content_type}"] if content_type else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()

    return script


def raw(*parts: bytes, then_close: bool = True) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
        if then_close:
            writer.close()
        else:
            await asyncio.Event().wait()

    return script


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return b"%x\r\n%b\r\n" % (len(content), content)


OK = {"result": {"ok": True}}


# ---- good answers


def test_calls_in_a_row_use_one_connection_and_carry_what_the_revision_asks_for() -> None:
    async def body() -> None:
        async with serving(reply(OK, Mcp_Session_Id="s1"), headers={"X-Key": "secret"}) as (server, wire):
            for number in range(5):
                ended, _ = await ask(wire, call(b"%d" % number, session_id="s0", headers={"traceparent": "00-1"}))
                assert ended == UpstreamAnswer(200, Response(b"%d" % number, b'{"ok": true}', b""), "s1")
            assert server.connections == 1
            headers = server.seen[0].headers
            assert headers["content-type"] == "application/json"
            assert headers["accept"] == "application/json, text/event-stream"
            assert (headers["mcp-session-id"], headers["mcp-protocol-version"]) == ("s0", LEGACY)
            assert (headers["x-key"], headers["traceparent"]) == ("secret", "00-1")
            assert "mcp-method" not in headers
            await ask(wire, call(message=Request(b"1", "initialize", b"{}")))
            assert "mcp-protocol-version" not in server.seen[-1].headers

    on_loop(body)


@pytest.mark.parametrize(("name", "shown"), [("echo", "echo"), ("grüße", "=?base64?Z3LDvMOfZQ==?=")])
def test_a_modern_call_repeats_its_method_and_name_in_headers(name: str, shown: str) -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Request Metadata"."""

    async def body() -> None:
        async with serving(reply(OK)) as (server, wire):
            params = json.dumps({"name": name}).encode()
            await ask(wire, call(revision=MODERN, message=Request(b"1", "tools/call", params)))
            headers = server.seen[0].headers
            assert (headers["mcp-method"], headers["mcp-name"]) == ("tools/call", shown)
            assert headers["mcp-protocol-version"] == MODERN

    on_loop(body)


def test_an_event_stream_gives_its_messages_and_then_its_answer() -> None:
    async def body() -> None:
        notice = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
        question = '{"jsonrpc":"2.0","id":"q","method":"ping"}'
        parts = [
            chunk("id: e0\ndata: \n\n"),
            chunk(f": hello\n\nid: e1\nevent: message\ndata: {notice}\n"),
            chunk(f"\nevent: other\ndata: ignored\n\ndata: {question}\n\n"),
            chunk('id: e2\ndata: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'),
        ]
        async with serving(raw(SSE_HEAD, *parts, then_close=False)) as (_, wire):
            ended, events = await ask(wire)
            assert isinstance(ended, UpstreamAnswer)
            assert ended.response == Response(b"7", b"{}", b"")
            assert events == [
                (None, "e0"),
                (Notification("notifications/progress", b'{"progress":1}'), "e1"),
                (Request(b'"q"', "ping", b""), None),
            ]

    on_loop(body)


def test_a_byte_order_mark_before_an_answer_is_passed_over() -> None:
    async def body() -> None:
        async with serving(reply(b'\xef\xbb\xbf{"jsonrpc":"2.0","id":7,"result":{}}')) as (_, wire):
            ended, _ = await ask(wire)
            assert isinstance(ended, UpstreamAnswer)
            assert ended.response == Response(b"7", b"{}", b"")

    on_loop(body)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(("size", "is_read"), [(9_000, True), (5_000_000, False)])
def test_an_answer_that_is_compressed_unasked_is_read_and_counts_by_what_it_unfolds_to(
    content_type: str, size: int, is_read: bool
) -> None:
    """Five megabytes arrive as five kilobytes, which is below the limit: they must never be in memory as a whole."""
    answer = b'{"jsonrpc":"2.0","id":7,"result":{"x":"' + b"0" * size + b'"}}'
    content = gzip.compress(answer if content_type == "application/json" else b"data: " + answer + b"\n\n")

    async def body() -> None:
        async with serving(reply(content, content_type=content_type, Content_Encoding="gzip")) as (_, wire):
            tracemalloc.start()
            ended, _ = await ask(wire)
            _, peak_bytes = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak_bytes < 2_000_000
            if is_read:
                assert isinstance(ended, UpstreamAnswer)
                assert ended.response == Response(b"7", answer[answer.index(b'{"x"') : -1], b"")
            else:
                assert isinstance(ended, UpstreamError)
                assert ended.reason == "upstream_failed"
                assert str(MAX_BYTES) in ended.text

    on_loop(body)


@pytest.mark.parametrize("kind", ["message", "terminate"])
@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_what_needs_no_response_is_acknowledged_by_any_success(kind: str, status: str) -> None:
    async def body() -> None:
        async with serving(reply(b"", status, "")) as (server, wire):
            message = Notification("notifications/initialized", b"") if kind == "message" else None
            ended, _ = await ask(wire, call(kind=kind, message=message, session_id="s"))
            assert isinstance(ended, UpstreamAnswer)
            assert (ended.status, ended.response) == (int(status[:3]), None)
            assert server.seen[0].verb == ("POST" if kind == "message" else "DELETE")

    on_loop(body)


def test_an_error_response_is_an_answer_whatever_client_error_status_it_has() -> None:
    async def body() -> None:
        error = {"error": {"code": -32602, "message": "no"}}
        for status, revision in (("200 OK", LEGACY), ("400 Bad Request", LEGACY), ("404 Not Found", MODERN)):
            async with serving(reply(error, status)) as (_, wire):
                ended, _ = await ask(wire, call(revision=revision))
                assert isinstance(ended, UpstreamAnswer)
                assert ended.status == int(status[:3])
                assert ended.response is not None
                assert json.loads(ended.response.error) == error["error"]
                assert ended.response.id == b"7"

    on_loop(body)


# ---- bad answers

BROKEN: dict[str, Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]] = {
    "another id": reply(b'{"jsonrpc":"2.0","id":8,"result":{}}'),
    "no JSON": reply(b"oops"),
    "no response": reply(b'{"jsonrpc":"2.0","method":"ping","id":7}'),
    "no message": reply(b'{"hello":1}'),
    "202 to a request": reply(b"", "202 Accepted", ""),
    "204 to a request": reply(b"", "204 No Content", ""),
    "no body": reply(b"", "200 OK", "application/json"),
    "another content type": reply(OK, content_type="text/html"),
    "a redirect to another origin": reply(b"", "307 Temporary Redirect", "", Location="http://127.0.0.1:1/"),
    "a redirect that would change the request": reply(b"", "302 Found", "", Location="/other"),
    "a redirect to nowhere": reply(b"", "308 Permanent Redirect", "", Location="http://[/"),
    "500 with a page": reply(b"<h1>", "500 Internal Server Error", "text/html"),
    "503 with a JSON-RPC error": reply({"error": {"code": -32000, "message": "busy"}}, "503 Service Unavailable"),
    "a large body": reply({"result": {"x": "y" * MAX_BYTES}}),
    "a large body in chunks": raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk(b"x" * 4000)] * 4
    ),
    "a large event": raw(SSE_HEAD, *[chunk(b"data: " + b"x" * 4000 + b"\n")] * 4),
    "a malformed event": raw(SSE_HEAD, chunk("data: {oops\n\n")),
    "a stream without an answer": raw(SSE_HEAD, chunk(": nothing\n\n"), b"0\r\n\r\n"),
    "a stream that breaks off": raw(SSE_HEAD, chunk(": nothing\n\n")),
    "a body that breaks off": raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "nothing but the end": raw(),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_answer_is_a_fault_of_the_server(what: str) -> None:
    async def body() -> None:
        async with serving(BROKEN[what]) as (server, wire):
            error = await refused(wire)
            assert (error.reason, error.was_sent, error.is_fault) == ("upstream_failed", True, True), error.text
            assert (error.is_session_lost, error.is_unsupported) == (False, False)
            assert [seen.verb for seen in server.seen] == ["POST"]  # a tool is never called twice

    on_loop(body)


@pytest.mark.parametrize(("status", "times"), [(307, 1), (308, 3)])
def test_a_redirect_within_the_origin_is_followed_with_the_same_request(status: int, times: int) -> None:
    async def body() -> None:
        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            moves = len(server.seen) <= times
            await (reply(b"", f"{status} Moved", "", Location=f"/step/{len(server.seen)}") if moves else reply(OK))(seen, writer)

        async with serving(script) as (server, wire):
            answer, _ = await ask(wire)
            assert isinstance(answer, UpstreamAnswer), answer
            assert [seen.verb for seen in server.seen] == ["POST"] * (times + 1)
            assert all(seen.body == server.seen[0].body for seen in server.seen)

    on_loop(body)


def test_a_server_that_redirects_for_ever_is_given_up() -> None:
    async def body() -> None:
        async with serving(reply(b"", "307 Temporary Redirect", "", Location="/mcp/")) as (server, wire):
            assert (await refused(wire)).text == "the server redirects too often"
            assert len(server.seen) == 4

    on_loop(body)


def test_the_error_of_a_server_that_fails_is_kept_for_the_client() -> None:
    async def body() -> None:
        async with serving(BROKEN["503 with a JSON-RPC error"]) as (_, wire):
            assert json.loads((await refused(wire)).error) == {"code": -32000, "message": "busy"}

    on_loop(body)


def test_a_request_that_changes_nothing_is_asked_again_where_the_server_closed_the_connection() -> None:
    async def body() -> None:
        attempts = 0

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            await (raw() if attempts == 1 else reply(OK))(seen, writer)

        async with serving(script) as (server, wire):
            ended, _ = await ask(wire, call(message=Request(b"1", "tools/list", b"")))
            assert isinstance(ended, UpstreamAnswer)
            assert [seen.method for seen in server.seen] == ["tools/list"] * 2

    on_loop(body)


def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    async def body() -> None:
        wire = conversation(f"http://127.0.0.1:{free_port()}/mcp")
        error = await refused(wire)
        assert (error.reason, error.was_sent, error.is_fault) == ("upstream_failed", False, True)
        assert error.text == "cannot connect: Connection refused"
        await wire.close()

    on_loop(body)


def test_404_in_a_session_means_that_it_is_lost() -> None:
    """Source: MCP 2025-11-25, basic/transports, "Session Management"."""

    async def body() -> None:
        async with serving(reply({"error": {"code": -32600, "message": "no session"}}, "404 Not Found")) as (_, wire):
            error = await refused(wire, call(session_id="old"))
            assert (error.reason, error.is_session_lost, error.is_fault) == ("session_not_found", True, False)

    on_loop(body)


@pytest.mark.parametrize("kind", ["stream", "terminate"])
def test_405_means_that_the_server_offers_no_stream_or_end(kind: str) -> None:
    async def body() -> None:
        async with serving(reply(b"", "405 Method Not Allowed", "")) as (server, wire):
            error = await refused(wire, call(kind=kind, message=None, session_id="s", timeout_s=None))
            assert (error.reason, error.is_fault) == ("unknown_method", False)
            if kind == "stream":
                assert server.seen[0].headers["accept"] == "text/event-stream"

    on_loop(body)


def test_a_stream_of_a_session_resumes_where_it_broke_and_ends_without_an_answer() -> None:
    async def body() -> None:
        notice = '{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
        script = raw(SSE_HEAD, chunk(f"id: e8\ndata: {notice}\n\n"), b"0\r\n\r\n", then_close=False)
        async with serving(script) as (server, wire):
            request = call(kind="stream", message=None, session_id="s", last_event_id="e7", timeout_s=None)
            ended, events = await ask(wire, request)
            assert ended == UpstreamAnswer(200, None, None)
            assert [event_id for _, event_id in events] == ["e8"]
            assert (server.seen[0].verb, server.seen[0].headers["last-event-id"]) == ("GET", "e7")

    on_loop(body)


# ---- time


@pytest.mark.parametrize("stage", ["head", "body", "events"])
def test_the_timeout_covers_the_whole_answer(stage: str) -> None:
    json_head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    start = {"head": (), "body": (json_head, chunk("{")), "events": (SSE_HEAD, chunk(": hello\n\n"))}[stage]

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await raw(*start, then_close=True)(seen, _Unclosed(writer))  # type: ignore[arg-type]
        while True:  # goes on and on: only the whole is too slow
            await asyncio.sleep(0.02)
            if stage != "head":
                writer.write(chunk(" " if stage == "body" else ": on\n\n"))

    async def body() -> None:
        async with serving(script) as (server, wire):
            started_s = time.monotonic()
            error = await refused(wire, call(timeout_s=1.0))
            assert (error.reason, error.was_sent, error.is_fault) == ("upstream_timeout", True, True)
            assert 0.9 < time.monotonic() - started_s < 4
            await eventually(lambda: server.closed == 1)

    on_loop(body)


class _Unclosed:
    """A writer whose close does nothing."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.write, self.drain = writer.write, writer.drain

    def close(self) -> None:
        """The script goes on."""


def test_cancelling_closes_the_connection_to_the_server() -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http: closing the stream cancels the request."""

    async def body() -> None:
        async with serving(raw(SSE_HEAD, then_close=False)) as (server, wire):
            exchange = asyncio.create_task(ask(wire))
            await eventually(lambda: len(server.seen) == 1)
            assert server.closed == 0
            exchange.cancel()
            await eventually(lambda: server.closed == 1)
            assert exchange.cancelled()

    on_loop(body)


def test_a_handler_that_does_not_take_events_stops_the_server() -> None:
    """Backpressure reaches the server: its own writes stop, and go on when events are taken again."""

    async def body() -> None:
        event = chunk('data: {"jsonrpc":"2.0","method":"notifications/message","params":{"x":"%s"}}\n\n' % ("x" * 5000))
        total, written, blocked_at = 4_000, 0, 0

        async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            writer.write(SSE_HEAD)
            for written in range(1, total + 1):  # noqa: B007
                writer.write(event)
                await writer.drain()
            writer.write(chunk('data: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'))

        async with serving(script) as (_, wire):
            may_read = asyncio.Event()
            taken = 0

            async def take(message: Message | None, event_id: str | None) -> None:
                nonlocal taken
                await may_read.wait()
                taken += 1

            exchange = asyncio.create_task(wire.exchange(call(timeout_s=15), take))
            await eventually(lambda: written > 0)
            while blocked_at != written:  # until it has not moved for a while
                blocked_at = written
                await asyncio.sleep(0.2)
            assert blocked_at < total
            assert taken == 0
            may_read.set()
            assert isinstance(await exchange, UpstreamAnswer)
            assert (taken, written) == (total, total)

    on_loop(body)


# ---- probes


def probed_server(
    speaks: str, *, session_ids: bool = True, revision: str = LEGACY
) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    """A server of one era. A legacy one knows the newest session only, and refuses every other revision than its own."""
    sessions: list[str] = []

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        is_modern = seen.headers.get("mcp-protocol-version") == MODERN
        if speaks == "modern" or (is_modern and speaks == "both"):
            await reply(OK if seen.method == "server/discover" else {"error": {"code": -32601, "message": "?"}})(seen, writer)
        elif is_modern:
            await reply(b"Bad Request: Unsupported protocol version", "400 Bad Request", "text/plain")(seen, writer)
        elif seen.method != "initialize" and seen.headers.get("mcp-protocol-version") != revision:
            await reply(b"Bad Request: Unsupported protocol version", "400 Bad Request", "")(seen, writer)
        elif seen.method == "initialize":
            sessions.append(f"s{len(sessions)}")
            await reply({"result": {"protocolVersion": revision}}, **({"Mcp_Session_Id": sessions[-1]} if session_ids else {}))(
                seen, writer
            )
        elif session_ids and seen.headers.get("mcp-session-id") != sessions[-1]:
            await reply(b"", "404 Not Found", "")(seen, writer)
        elif seen.method == "forget":
            sessions.append("none")
        else:
            await reply(OK if "id" in seen.body else b"", "200 OK" if "id" in seen.body else "202 Accepted")(seen, writer)

    script.sessions = sessions  # type: ignore[attr-defined]
    return script


def test_a_modern_server_is_probed_by_discovery() -> None:
    async def body() -> None:
        async with serving(probed_server("modern")) as (server, wire):
            for _ in range(2):
                await wire.probe(2.0)
            assert [seen.method for seen in server.seen] == ["server/discover"] * 2
            meta = server.seen[0].body["params"]["_meta"]
            assert meta["io.modelcontextprotocol/protocolVersion"] == MODERN

    on_loop(body)


def test_a_legacy_server_is_probed_by_ping_in_a_session_that_is_closed_with_the_wire() -> None:
    async def body() -> None:
        async with serving(probed_server("legacy")) as (server, wire):
            for _ in range(3):
                await wire.probe(2.0)
            opening = ["server/discover", "initialize", "notifications/initialized"]
            assert [seen.method for seen in server.seen] == [*opening, "ping", "ping"]
            # What has been learned holds for calls as well: a modern one is refused before it is sent.
            error = await refused(wire, call(revision=MODERN))
            assert (error.is_unsupported, error.is_fault) == (True, False)
            assert len(server.seen) == 5
            await wire.close()
            assert (server.seen[-1].verb, server.seen[-1].headers["mcp-session-id"]) == ("DELETE", "s0")

    on_loop(body)


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
@pytest.mark.parametrize("is_pinned", [False, True])
def test_probes_speak_the_revision_that_the_server_has_chosen(revision: str, is_pinned: bool) -> None:
    """A server may refuse every other. Source: MCP 2025-11-25, basic/transports, "Protocol Version Header"."""

    async def body() -> None:
        pinned = {"protocol": revision} if is_pinned else {}
        async with serving(probed_server("legacy", revision=revision), **pinned) as (server, wire):
            for _ in range(3):
                await wire.probe(2.0)
            in_session = [seen for seen in server.seen if "mcp-session-id" in seen.headers]
            assert [seen.method for seen in in_session] == ["notifications/initialized", "ping", "ping"]
            assert {seen.headers["mcp-protocol-version"] for seen in in_session} == {revision}
            (opening,) = (seen for seen in server.seen if seen.method == "initialize")
            assert opening.body["params"]["protocolVersion"] == (revision if is_pinned else LEGACY)
            await wire.close()
            assert (server.seen[-1].verb, server.seen[-1].headers["mcp-protocol-version"]) == ("DELETE", revision)

    on_loop(body)


def test_a_legacy_server_that_fails_at_discovery_is_well_where_it_answers_in_a_session() -> None:
    async def body() -> None:
        sound = probed_server("legacy")

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (reply(b"", "500 Oops", "") if seen.method == "server/discover" else sound)(seen, writer)

        async with serving(script) as (server, wire):
            for _ in range(3):
                await wire.probe(2.0)
            opening = ["server/discover", "initialize", "notifications/initialized"]
            assert [seen.method for seen in server.seen] == [*opening, "ping", "ping"]

    on_loop(body)


def test_a_probe_session_that_is_given_up_is_ended() -> None:
    async def body() -> None:
        sound, is_broken = probed_server("legacy"), False

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (reply(b"", "500 Oops", "") if is_broken and seen.method == "ping" else sound)(seen, writer)

        async with serving(script) as (server, wire):
            await wire.probe(2.0)
            is_broken = True
            with pytest.raises(UpstreamError):
                await wire.probe(2.0)
            assert (server.seen[-1].verb, server.seen[-1].headers["mcp-session-id"]) == ("DELETE", "s0")

    on_loop(body)


# ---- streams


@pytest.mark.parametrize(("knows_session", "reason"), [(True, "unknown_method"), (False, "session_not_found")])
def test_a_404_to_a_get_means_a_lost_session_only_where_a_ping_meets_it_too(knows_session: bool, reason: str) -> None:
    """A server without a GET at all may answer so, and knows the session all the same."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        is_known = seen.verb == "POST" and knows_session
        await (reply(OK) if is_known else reply(b"", "404 Not Found", "text/html"))(seen, writer)

    async def body() -> None:
        async with serving(script) as (server, wire):
            error = await refused(wire, call(kind="stream", message=None, timeout_s=None, session_id="s"))  # type: ignore[arg-type]
            assert (error.reason, error.is_session_lost, error.is_fault) == (reason, not knows_session, False)
            assert [(seen.verb, seen.method) for seen in server.seen] == [("GET", ""), ("POST", "ping")]

    on_loop(body)


def polled_server(
    *polls: Callable[[Seen, asyncio.StreamWriter], Awaitable[None]], opening: str = "id: e1\nretry: 100\ndata: \n\n"
) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    """Answers a POST with a stream that ends at once, and each GET with the next of `polls`."""
    left = list(polls)

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await (raw(SSE_HEAD, chunk(opening), b"0\r\n\r\n") if seen.verb == "POST" else left.pop(0))(seen, writer)

    return script


def test_an_answer_whose_stream_has_ended_is_polled_for_where_it_was_left() -> None:
    """Source: MCP 2025-11-25, basic/transports, "Sending Messages to the Server", item 6."""

    async def body() -> None:
        notice = '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
        script = polled_server(
            raw(SSE_HEAD, chunk(f"id: e2\ndata: {notice}\n\n"), b"0\r\n\r\n"),
            raw(SSE_HEAD, chunk(": nothing yet\n\n"), then_close=True),  # cut off, without its last chunk
            raw(SSE_HEAD, chunk('id: e3\ndata: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'), then_close=False),
        )
        async with serving(script) as (server, wire):
            ended, events = await ask(wire, call(session_id="s"))
            assert isinstance(ended, UpstreamAnswer)
            assert ended.response == Response(b"7", b"{}", b"")
            assert events == [(None, "e1"), (Notification("notifications/progress", b'{"progress":1}'), "e2")]
            gets = [seen.headers for seen in server.seen if seen.verb == "GET"]
            assert [headers["last-event-id"] for headers in gets] == ["e1", "e2", "e2"]
            assert {(headers["mcp-session-id"], headers["accept"]) for headers in gets} == {("s", "text/event-stream")}
            assert len(server.seen) == 4, "the call itself is sent once"

    on_loop(body)


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "400 Bad Request"])
def test_an_answer_that_cannot_be_polled_for_has_failed_and_is_not_asked_again(status: str) -> None:
    async def body() -> None:
        async with serving(polled_server(reply(b"", status, ""))) as (server, wire):
            error = await refused(wire, call(session_id="s"))
            assert (error.reason, error.is_cut, error.is_session_lost) == ("upstream_failed", True, False)
            assert error.text == "the server ended its stream without a response"
            assert [seen.verb for seen in server.seen] == ["POST", "GET"]

    on_loop(body)


def test_polling_ends_with_the_time_of_the_call() -> None:
    async def body() -> None:
        polls = [raw(SSE_HEAD, b"0\r\n\r\n") for _ in range(100)]
        async with serving(polled_server(*polls, opening="id: e1\nretry: 0\ndata: \n\n")) as (server, wire):
            error = await refused(wire, call(session_id="s", timeout_s=1.0))
            assert error.reason == "upstream_timeout"
            assert 5 <= len(server.seen) <= 12, "ten times a second at most, though the server asks for more"

    on_loop(body)


@pytest.mark.parametrize(("revision", "opening"), [(LEGACY, ": no id\n\n"), (MODERN, "id: e1\ndata: \n\n")])
def test_where_there_is_nothing_to_read_on_from_the_call_fails_at_once(revision: str, opening: str) -> None:
    async def body() -> None:
        async with serving(polled_server(opening=opening)) as (server, wire):
            message = Request(b"7", "tools/call", b'{"name":"x"}')
            error = await refused(wire, call(revision=revision, message=message))
            assert (error.text, len(server.seen)) == ("the server ended its stream without a response", 1)

    on_loop(body)


def test_a_lost_probe_session_is_opened_again_and_is_no_problem() -> None:
    async def body() -> None:
        script = probed_server("legacy")
        async with serving(script) as (server, wire):
            await wire.probe(2.0)
            script.sessions.append("another")  # type: ignore[attr-defined]
            await wire.probe(2.0)
            assert [seen.method for seen in server.seen[-3:]] == ["ping", "initialize", "notifications/initialized"]
            await wire.probe(2.0)
            assert server.seen[-1].method == "ping"

    on_loop(body)


def test_a_server_without_session_ids_is_probed_by_the_handshake() -> None:
    async def body() -> None:
        async with serving(probed_server("legacy", session_ids=False)) as (server, wire):
            for _ in range(2):
                await wire.probe(2.0)
            assert [seen.method for seen in server.seen].count("initialize") == 2

    on_loop(body)


@pytest.mark.parametrize("what", ["500 with a page", "no JSON", "no HTTP"])
def test_a_probe_of_a_broken_server_fails_and_decides_nothing_about_its_era(what: str) -> None:
    async def body() -> None:
        broken = True
        sound = probed_server("modern")

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await (BROKEN[what] if broken else sound)(seen, writer)

        async with serving(script) as (_, wire):
            with pytest.raises(UpstreamError):
                await wire.probe(2.0)
            broken = False
            ended, _ = await ask(wire, call(revision=MODERN))
            assert not (isinstance(ended, UpstreamError) and ended.is_unsupported)
            await wire.probe(2.0)

    on_loop(body)


def test_a_backend_with_a_fixed_revision_is_not_asked_for_its_era() -> None:
    async def body() -> None:
        async with serving(probed_server("both"), protocol=LEGACY) as (server, wire):
            await wire.probe(2.0)
            assert server.seen[0].method == "initialize"
            assert (await refused(wire, call(revision=MODERN))).is_unsupported

    on_loop(body)
