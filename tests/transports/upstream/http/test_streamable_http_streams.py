"""Streams of a server over Streamable HTTP: whether it has them, and reading an answer on where its stream has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from tests.doubles.patience import on_loop
from tests.doubles.scripted_http import (
    LEGACY,
    MODERN,
    OK,
    SSE_HEAD,
    Seen,
    ask,
    call,
    chunk,
    raw,
    refused,
    reply,
    serving,
)


@pytest.mark.parametrize(("knows_session", "reason"), [(True, "unknown_method"), (False, "session_not_found")])
def test_a_404_to_a_get_means_a_lost_session_only_where_a_ping_meets_it_too(knows_session: bool, reason: str) -> None:
    """A server without a GET at all may answer so, and knows the session all the same."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        is_known = seen.verb == "POST" and knows_session
        await (reply(OK) if is_known else reply(b"", "404 Not Found", "text/html"))(seen, writer)

    async def body() -> None:
        async with serving(script) as (server, wire):
            error = await refused(wire, call(kind=RequestKind.STREAM, message=None, timeout_s=None, session_id="s"))  # type: ignore[arg-type]
            assert (error.failure.reason, error.fate is Fate.SESSION_LOST, error.fate.is_fault) == (
                reason,
                not knows_session,
                False,
            )
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
            assert (error.failure.reason, error.fate.is_cut, error.fate is Fate.SESSION_LOST) == ("upstream_failed", True, False)
            assert error.failure.text == "the server ended its stream without a response"
            assert [seen.verb for seen in server.seen] == ["POST", "GET"]

    on_loop(body)


def test_polling_ends_with_the_time_of_the_call() -> None:
    async def body() -> None:
        polls = [raw(SSE_HEAD, b"0\r\n\r\n") for _ in range(100)]
        async with serving(polled_server(*polls, opening="id: e1\nretry: 0\ndata: \n\n")) as (server, wire):
            error = await refused(wire, call(session_id="s", timeout_s=1.0))
            assert error.failure.reason == "upstream_timeout"
            assert 5 <= len(server.seen) <= 12, "ten times a second at most, though the server asks for more"

    on_loop(body)


@pytest.mark.parametrize(("revision", "opening"), [(LEGACY, ": no id\n\n"), (MODERN, "id: e1\ndata: \n\n")])
def test_where_there_is_nothing_to_read_on_from_the_call_fails_at_once(revision: str, opening: str) -> None:
    async def body() -> None:
        async with serving(polled_server(opening=opening)) as (server, wire):
            message = Request(b"7", "tools/call", b'{"name":"x"}')
            error = await refused(wire, call(revision=revision, message=message))
            assert (error.failure.text, len(server.seen)) == ("the server ended its stream without a response", 1)

    on_loop(body)
