"""Heads that two readers could understand in two ways are refused, in one way, and the connection with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.request_head import check_fields, check_lines
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.raw_http_client import RawClient, on_cell
from tests.doubles.running_cell import RunningCell

pytestmark = pytest.mark.usefixtures("each_http_parser")

GET = "GET /health/live HTTP/1.1"
POST = "POST /mcp HTTP/1.1"
HOST = "Host: 127.0.0.1"


def head(*lines: str, end: str = "\r\n") -> bytes:
    return end.join([*lines, "", ""]).encode("latin-1")


MALFORMED: dict[str, bytes] = {
    "LF alone ends the lines": head(GET, HOST, end="\n"),
    "LF alone ends one line": head(GET, f"{HOST}\nX: 1"),
    "LF alone ends the head": head(GET, HOST)[:-2] + b"\n",
    "LF alone before the head's end": head(GET, HOST)[:-4] + b"\n\r\n",
    "LF alone before the request line": b"\n" + head(GET, HOST),
    "CR alone in a value": head(GET, HOST, "X: a\rb"),
    "CR alone in a name": head(GET, HOST, "X\r: a"),
    "CR twice at a line's end": head(GET, f"{HOST}\r"),
    "a folded line": head(GET, HOST, "X: a", " b"),
    "a folded line with a tab": head(GET, HOST, "X: a", "\tb"),
    "a line without a colon": head(GET, HOST, "nothing"),
    "a space before the colon": head(POST, HOST, "Content-Length : 3") + b"abc",
    "a name with a space": head(GET, HOST, "X Y: 1"),
    "NUL in a value": head(GET, HOST, "X: a\0b"),
    "no request line": head("", HOST),
    "a target with a space": head("GET /a b HTTP/1.1", HOST),
    "two spaces": head("GET  /health/live HTTP/1.1", HOST),
    "a tab instead of a space": head("GET\t/health/live HTTP/1.1", HOST),
    "no version": head("GET /health/live", HOST),
    "another version": head("GET /health/live HTTP/2.0", HOST),
    "a version in lower case": head("GET /health/live http/1.1", HOST),
    "a method with a colon": head("GE:T /health/live HTTP/1.1", HOST),
    "no Host": head(GET),
    "an empty Host": head(GET, "Host:"),
    "two Hosts": head(GET, HOST, HOST),
    "two Hosts in one": head(GET, "Host: 127.0.0.1, evil.example"),
    "a Host with a user": head(GET, "Host: localhost:1@evil.com"),
    "a Host with a user without a port": head(GET, "Host: localhost@evil.com"),
    "a Host with a space": head(GET, "Host: 127.0.0.1 evil.com"),
    "a Host with a path": head(GET, "Host: 127.0.0.1/evil"),
    "a Host with a query": head(GET, "Host: 127.0.0.1?evil"),
    "a Host with a scheme": head(GET, "Host: http://127.0.0.1"),
    "a Host with a port that is no number": head(GET, "Host: 127.0.0.1:x"),
    "a Host with two ports": head(GET, "Host: 127.0.0.1:1:2"),
    "a Host with an open bracket": head(GET, "Host: [::1"),
    "a Host beyond ASCII": head(GET, "Host: l\xf6calhost"),
    "a target with a user": head("GET http://localhost:1@evil.com/health/live HTTP/1.1", HOST),
    "a target without a host": head("GET http:///health/live HTTP/1.1", HOST),
    "a target with a host beside no Host": head("GET http://127.0.0.1/health/live HTTP/1.1"),
    "a target with a host beside a bad Host": head("GET http://127.0.0.1/health/live HTTP/1.1", "Host: a@b"),
    "a length and a coding": head(POST, HOST, "Content-Length: 3", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "a coding and a length": head(POST, HOST, "Transfer-Encoding: chunked", "Content-Length: 3") + b"0\r\n\r\n",
    "two lengths": head(POST, HOST, "Content-Length: 3", "Content-Length: 4") + b"abc",
    "the same length twice": head(POST, HOST, "Content-Length: 3", "Content-Length: 3") + b"abc",
    "two lengths in one": head(POST, HOST, "Content-Length: 3, 3") + b"abc",
    "a length with a sign": head(POST, HOST, "Content-Length: +3") + b"abc",
    "a length below nothing": head(POST, HOST, "Content-Length: -3") + b"abc",
    "a length in hexadecimal": head(POST, HOST, "Content-Length: 0x3") + b"abc",
    "a length with an underscore": head(POST, HOST, "Content-Length: 1_0") + b"abc",
    "an empty length": head(POST, HOST, "Content-Length:") + b"abc",
    "a length of 400 digits": head(POST, HOST, "Content-Length: " + "9" * 400),
    "an unknown coding": head(POST, HOST, "Transfer-Encoding: xchunked"),
    "two codings": head(POST, HOST, "Transfer-Encoding: gzip, chunked"),
    "chunked twice": head(POST, HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "chunked and identity": head(POST, HOST, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"),
    "an empty coding": head(POST, HOST, "Transfer-Encoding:"),
    "a coding behind a vertical tab": head(POST, HOST, "Transfer-Encoding: \x0bchunked"),
    "a coding in HTTP/1.0": head("POST /mcp HTTP/1.0", HOST, "Transfer-Encoding: chunked"),
    "a chunk with an extension": head(POST, HOST, "Transfer-Encoding: chunked") + b"3;x=y\r\nabc\r\n0\r\n\r\n",
    "a chunk whose size has a sign": head(POST, HOST, "Transfer-Encoding: chunked") + b"+3\r\nabc\r\n0\r\n\r\n",
    "a chunk whose size has a prefix": head(POST, HOST, "Transfer-Encoding: chunked") + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk whose size ends in LF": head(POST, HOST, "Transfer-Encoding: chunked") + b"3\nabc\r\n0\r\n\r\n",
    "a chunk of another size": head(POST, HOST, "Transfer-Encoding: chunked") + b"3\r\nabcd\r\n0\r\n\r\n",
    "trailers": head(POST, HOST, "Transfer-Encoding: chunked") + b"0\r\nX: 1\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_served(sent: bytes) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            client.writer.write(sent + head(GET, HOST))
            answer = await client.answer()
            assert (answer.status, answer.reason, answer.headers["connection"]) == (400, "invalid_request", "close")
            assert await client.is_closed()
        assert cell.cell._server.reading == set()
        assert cell.cell._server._server.waiting_count == 0

    on_cell(body)


WELL_FORMED: dict[str, bytes] = {
    "the shortest": head(GET, HOST),
    "an empty line before it": b"\r\n" + head(GET, HOST),
    "HTTP/1.0 without Host": head("GET /health/live HTTP/1.0", "Connection: keep-alive"),
    "a port": head(GET, f"{HOST}:80"),
    "an empty port": head(GET, f"{HOST}:"),
    "an IPv6 address": head(GET, "Host: [::1]:4000"),
    "a name in capitals": head(GET, "Host: LOCALHOST"),
    "spaces around a value": head(GET, "Host:   127.0.0.1 \t"),
    "no space before a value": head(GET, "Host:127.0.0.1"),
    "an empty value": head(GET, HOST, "X:"),
    "bytes beyond ASCII in a value": head(GET, HOST, "X: \xe9"),
    "a target with a host": head("GET http://localhost:1/health/live HTTP/1.1", HOST),
    "chunked in capitals": head("GET /health/live HTTP/1.1", HOST, "Transfer-Encoding: Chunked") + b"1\r\na\r\n0\r\n\r\n",
    "a length with zeros before it": head("GET /health/live HTTP/1.1", HOST, "Content-Length: 0003") + b"abc",
}


@pytest.mark.parametrize("sent", WELL_FORMED.values(), ids=WELL_FORMED)
def test_what_is_unusual_and_clear_is_served_and_so_is_what_follows(sent: bytes) -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            client.writer.write(sent + head(GET, HOST))
            assert [(await client.answer()).status for _ in range(2)] == [200, 200]

    on_cell(body)


def test_a_refusal_is_read_by_a_client_that_goes_on_sending() -> None:
    """A socket closed with unread data sends a reset, and a reset takes from the client what it has not read yet."""

    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            client.writer.write(head(POST, HOST, HOST, "Content-Length: 1000000"))
            for _ in range(20):
                client.writer.write(bytes(50_000))
                await client.writer.drain()
            assert (await client.answer()).status == 400

    on_cell(body)


TEXT = st.text(st.characters(max_codepoint=255), max_size=30)


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    try:
        check_lines(data)
    except Refused as refused:
        assert (refused.reason, refused.status) == ("invalid_request", 400)
    else:
        assert b"\n" not in data.replace(b"\r\n", b"")


@given(st.lists(TEXT, max_size=3), st.lists(TEXT, max_size=2), st.lists(TEXT, max_size=2), TEXT)
def test_any_fields_pass_or_are_refused(hosts: list[str], lengths: list[str], codings: list[str], target: str) -> None:
    try:
        check_fields(f"GET /{target} HTTP/1.1", hosts, lengths, codings)
    except Refused as refused:
        assert refused.reason == "invalid_request"
    else:
        assert len(hosts) == 1
        assert not set("@/?#, \t\\") & set(hosts[0])
        assert not (lengths and codings)
