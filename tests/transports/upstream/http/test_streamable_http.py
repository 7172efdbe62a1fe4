"""Streamable HTTP towards servers that follow a script: every kind of answer, and every way not to give one."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import tracemalloc

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from tests.doubles.patience import on_loop, until
from tests.doubles.ports import free_port
from tests.doubles.scripted_http import (
    BROKEN,
    LEGACY,
    MAX_BYTES,
    MODERN,
    OK,
    SSE_HEAD,
    Seen,
    ask,
    call,
    chunk,
    conversation,
    raw,
    refused,
    reply,
    serving,
)

NOTICE = Notification("notifications/message", b'{"level":"info","data":"x"}')
_NOTICE = jsonrpc.encode(NOTICE).decode()
_OURS = '{"jsonrpc":"2.0","id":7,"result":{"ok":true}}'
# Source: what serialisers that write every member make of an answer; MCP 2025-03-26, basic/index, "Batching".
ODD_ANSWERS = [
    '{"jsonrpc":"2.0","id":7,"result":{"ok":true},"error":null}',
    '{"jsonrpc":"2.0","id":7,"method":null,"params":null,"result":{"ok":true},"error":null}',
    '{"jsonrpc":"2.0","id":7,"result":null,"error":{"code":-32602,"message":"no"}}',
    '{"jsonrpc":"2.0","id":"7","result":{"ok":true}}',
    '{"id":7,"result":{"ok":true}}',
    '{"jsonrpc":"2.0","id":null,"result":{"ok":true}}',
    '{"jsonrpc":"2.0","result":{"ok":true}}',
    '{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}',
    '{"jsonrpc":"2.0","error":{"code":-32700,"message":"no"},"result":null}',
    f"[{_OURS}]",
    f"[{_NOTICE},{_OURS}]",
    f"[{_OURS}, {_NOTICE}, {_NOTICE}]",
    f'[{_NOTICE}, {{"what":1}}, {_OURS}]',
    f'[{{"jsonrpc":"2.0","id":8,"result":{{}}}}, {_OURS}]',
    f'[{_NOTICE},{{"jsonrpc":"2.0","id":null,"result":{{"ok":true}},"error":null}}]',
]

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


@pytest.mark.parametrize(
    ("method", "member", "name", "shown"),
    [
        ("tools/call", "name", "echo", "echo"),
        ("tools/call", "name", "grüße", "=?base64?Z3LDvMOfZQ==?="),
        ("tasks/get", "taskId", "T1", "T1"),
        ("tasks/update", "taskId", "T1", "T1"),
        ("tasks/cancel", "taskId", "T1", "T1"),
    ],
)
def test_a_modern_call_repeats_its_method_and_name_in_headers(method: str, member: str, name: str, shown: str) -> None:
    """Source: MCP 2026-07-28, basic/transports/streamable-http, "Request Metadata"; SEP-2663, "Routing Headers"."""

    async def body() -> None:
        async with serving(reply(OK)) as (server, wire):
            params = json.dumps({member: name}).encode()
            await ask(wire, call(revision=MODERN, message=Request(b"1", method, params)))
            headers = server.seen[0].headers
            assert (headers["mcp-method"], headers["mcp-name"]) == (method, shown)
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
                assert ended.failure.reason == "upstream_failed"
                assert str(MAX_BYTES) in ended.failure.text

    on_loop(body)


@pytest.mark.parametrize("kind", [RequestKind.MESSAGE, RequestKind.TERMINATE])
@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_what_needs_no_response_is_acknowledged_by_any_success(kind: RequestKind, status: str) -> None:
    async def body() -> None:
        async with serving(reply(b"", status, "")) as (server, wire):
            message = Notification("notifications/initialized", b"") if kind is RequestKind.MESSAGE else None
            ended, _ = await ask(wire, call(kind=kind, message=message, session_id="s"))
            assert isinstance(ended, UpstreamAnswer)
            assert (ended.status, ended.response) == (int(status[:3]), None)
            assert server.seen[0].verb == ("POST" if kind is RequestKind.MESSAGE else "DELETE")

    on_loop(body)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
@pytest.mark.parametrize(
    ("status", "revision"),
    [
        ("200 OK", LEGACY),
        ("201 Created", LEGACY),
        ("400 Bad Request", LEGACY),
        ("403 Forbidden", LEGACY),
        ("404 Not Found", LEGACY),
        ("404 Not Found", MODERN),
        ("500 Internal Server Error", LEGACY),
        ("500 Internal Server Error", MODERN),
        ("503 Service Unavailable", LEGACY),
    ],
)
def test_an_error_response_is_an_answer_whatever_status_it_has(status: str, revision: str, content_type: str) -> None:
    async def body() -> None:
        error = {"error": {"code": -32602, "message": "no"}}
        async with serving(reply(error, status, content_type)) as (_, wire):
            ended, _ = await ask(wire, call(revision=revision))
            assert isinstance(ended, UpstreamAnswer)
            assert ended.status == (200 if status[0] == "2" else int(status[:3]))
            assert ended.response is not None
            assert json.loads(ended.response.error) == error["error"]
            assert ended.response.id == b"7"

    on_loop(body)


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Internal Server Error"])
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("said", ODD_ANSWERS)
def test_an_answer_is_understood_in_every_spelling(said: str, content_type: str, status: str) -> None:
    async def body() -> None:
        content = f"data: {said}\n\n" if content_type == "text/event-stream" else said
        async with serving(reply(content.encode(), status, content_type)) as (server, wire):
            ended, events = await ask(wire)
            assert isinstance(ended, UpstreamAnswer), ended.failure.text
            assert ended.response is not None
            assert ended.response.id == b"7"
            if "error" in said and '"error":null' not in said:
                assert json.loads(ended.response.error)["message"] == "no"
            else:
                assert json.loads(ended.response.result) == {"ok": True}
            assert [message for message, _ in events] == [NOTICE] * said.count("notifications/message")
            assert len(server.seen) == 1

    on_loop(body)


# ---- bad answers


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_answer_is_a_fault_of_the_server(what: str) -> None:
    async def body() -> None:
        async with serving(BROKEN[what]) as (server, wire):
            error = await refused(wire)
            assert (error.failure.reason, error.fate.was_sent, error.fate.is_fault) == ("upstream_failed", True, True), (
                error.failure.text
            )
            assert (error.fate is Fate.SESSION_LOST, error.fate is Fate.UNSUPPORTED) == (False, False)
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
            assert (await refused(wire)).failure.text == "the server redirects too often"
            assert len(server.seen) == 4

    on_loop(body)


def test_the_error_of_a_server_that_fails_is_kept_for_the_client() -> None:
    async def body() -> None:
        async with serving(BROKEN["503 with an error of another request"]) as (_, wire):
            assert json.loads((await refused(wire)).failure.error) == {"code": -32000, "message": "busy"}

    on_loop(body)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "503 Service Unavailable"])
def test_what_a_server_says_when_it_refuses_is_kept_without_secrets(status: str) -> None:
    async def body() -> None:
        script = reply(b"licence of hush-hush\x00expired", status, "text/plain", Retry_After="7")
        async with serving(script, headers={"Authorization": "Bearer hush-hush"}) as (_, wire):
            failure = (await refused(wire)).failure
            assert json.loads(failure.error) == "licence of *** expired"
            assert failure.text == f"the server answered with status {status[:3]}: licence of *** expired"
            assert failure.retry_after_s == 7.0

    on_loop(body)


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/html"])
def test_what_is_no_answer_is_shown(content_type: str) -> None:
    async def body() -> None:
        said = b'{"detail":"licence expired"}'
        content = b"data: %b\n\n" % said if content_type == "text/event-stream" else said
        async with serving(reply(content, content_type=content_type)) as (_, wire):
            assert json.loads((await refused(wire)).failure.error) == '{"detail":"licence expired"}'

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


def test_a_call_does_not_suffer_from_a_server_that_fails_after_its_202_to_a_notification() -> None:
    """As servers of the Python SDK do where the session has ended meanwhile: they close the connection a little later."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if seen.method == "tools/call":
            await asyncio.sleep(0.1)
            await reply(OK)(seen, writer)
        else:
            await reply(b"", "202 Accepted", "")(seen, writer)
            asyncio.get_running_loop().call_later(0.03, writer.close)

    async def body() -> None:
        async with serving(script) as (server, wire):
            await ask(wire, call(kind=RequestKind.MESSAGE, message=Notification("notifications/progress", b"{}")))
            ended, _ = await ask(wire, call())
            assert isinstance(ended, UpstreamAnswer), ended
            assert server.connections == 2

    on_loop(body)


def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    async def body() -> None:
        wire = conversation(f"http://127.0.0.1:{free_port()}/mcp")
        error = await refused(wire)
        assert (error.failure.reason, error.fate.was_sent, error.fate.is_fault) == ("upstream_failed", False, True)
        assert error.failure.text == "cannot connect: Connection refused"
        await wire.close()

    on_loop(body)


def test_404_in_a_session_means_that_it_is_lost() -> None:
    """Source: MCP 2025-11-25, basic/transports, "Session Management"."""

    async def body() -> None:
        async with serving(reply({"error": {"code": -32600, "message": "no session"}}, "404 Not Found")) as (_, wire):
            error = await refused(wire, call(session_id="old"))
            assert (error.failure.reason, error.fate is Fate.SESSION_LOST, error.fate.is_fault) == (
                "session_not_found",
                True,
                False,
            )

    on_loop(body)


SESSION_REFUSALS = {
    "404": reply(b"", "404 Not Found", ""),
    "400": reply(b"Bad Request: no valid session ID", "400 Bad Request", "text/plain"),
    "410": reply(b"", "410 Gone", ""),
    "400 with an error": reply({"error": {"code": -32000, "message": "No valid session ID provided"}}, "400 Bad Request"),
    "404 with an error without id": reply(
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}', "404 Not Found"
    ),
    "200 with an error": reply({"error": {"code": -32602, "message": "Invalid request parameters"}}),
    "500 with an error": reply({"error": {"code": -32603, "message": "unknown session"}}, "500 Internal Server Error"),
}


@pytest.mark.parametrize("is_lost", [True, False])
@pytest.mark.parametrize("how", SESSION_REFUSALS)
def test_a_session_is_lost_where_a_ping_in_it_is_refused_as_the_request_was(how: str, is_lost: bool) -> None:
    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        is_well = seen.method == "ping" and not is_lost
        await (reply({"result": {}}) if is_well else SESSION_REFUSALS[how])(seen, writer)

    async def body() -> None:
        async with serving(script) as (server, wire):
            ended, _ = await ask(wire, call(session_id="old"))
            assert [seen.method for seen in server.seen] == ["tools/call", "ping"]
            assert server.seen[1].headers["mcp-session-id"] == "old"
            if is_lost:
                assert isinstance(ended, UpstreamError)
                assert (ended.fate, ended.failure.reason) == (Fate.SESSION_LOST, "session_not_found")
            else:
                assert isinstance(ended, UpstreamAnswer) or ended.fate is Fate.REFUSED

    on_loop(body)


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
def test_a_server_that_fails_at_everything_may_have_run_the_tool_and_is_not_asked_again(status: str) -> None:
    async def body() -> None:
        async with serving(reply({"error": {"code": -32603, "message": "Internal error"}}, status)) as (server, wire):
            ended, _ = await ask(wire, call(session_id="old"))
            assert isinstance(ended, UpstreamAnswer)
            assert [seen.method for seen in server.seen] == ["tools/call"]

    on_loop(body)


@pytest.mark.parametrize("kind", [RequestKind.STREAM, RequestKind.TERMINATE])
def test_405_means_that_the_server_offers_no_stream_or_end(kind: RequestKind) -> None:
    async def body() -> None:
        async with serving(reply(b"", "405 Method Not Allowed", "")) as (server, wire):
            error = await refused(wire, call(kind=kind, message=None, session_id="s", timeout_s=None))
            assert (error.failure.reason, error.fate.is_fault) == ("unknown_method", False)
            if kind is RequestKind.STREAM:
                assert server.seen[0].headers["accept"] == "text/event-stream"

    on_loop(body)


def test_a_stream_of_a_session_resumes_where_it_broke_and_ends_without_an_answer() -> None:
    async def body() -> None:
        notice = '{"jsonrpc":"2.0","method":"notifications/message","params":{}}'
        script = raw(SSE_HEAD, chunk(f"id: e8\ndata: {notice}\n\n"), b"0\r\n\r\n", then_close=False)
        async with serving(script) as (server, wire):
            request = call(kind=RequestKind.STREAM, message=None, session_id="s", last_event_id="e7", timeout_s=None)
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
            assert (error.failure.reason, error.fate.was_sent, error.fate.is_fault) == ("upstream_timeout", True, True)
            assert 0.9 < time.monotonic() - started_s < 4
            await until(lambda: server.closed == 1)

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
            await until(lambda: len(server.seen) == 1)
            assert server.closed == 0
            exchange.cancel()
            await until(lambda: server.closed == 1)
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
            await until(lambda: written > 0)
            while blocked_at != written:  # until it has not moved for a while
                blocked_at = written
                await asyncio.sleep(0.2)
            assert blocked_at < total
            assert taken == 0
            may_read.set()
            assert isinstance(await exchange, UpstreamAnswer)
            assert (taken, written) == (total, total)

    on_loop(body)
