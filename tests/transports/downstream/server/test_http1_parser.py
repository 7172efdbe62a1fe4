"""Requests out of bytes: the same however these are split, and for each head what Tornado's own parser makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPInputError

from mcp_gateway.transports.downstream.server.http1_parser import (
    _LONGEST_KEPT_LINE,
    _MOST_KEPT_LINES,
    END,
    MOST_FIELDS,
    Event,
    RequestEnd,
    RequestHead,
    RequestParser,
    _known_fields,
    read_head,
)
from mcp_gateway.transports.downstream.server.request_head import check_fields, check_lines
from mcp_gateway.transports.protocol.mcp.refusals import Refused

MAX_HEAD = 2_000
HOST = "Host: 127.0.0.1"
CHUNKED = "Transfer-Encoding: chunked"


def head(*lines: str, first: str = "POST /mcp HTTP/1.1") -> bytes:
    return "\r\n".join([first, HOST, *lines, "", ""]).encode("latin-1")


def read(parts: Sequence[bytes]) -> list[object]:
    """What a connection reads of these: heads, bodies in one piece, ends; and the status of the refusal that ends it."""
    parser = RequestParser(MAX_HEAD)
    found: list[object] = []
    for part in parts:
        data = part
        while data:
            events = parser.feed(data)
            found += events
            if any(isinstance(each, Refused) for each in events):
                return joined(found)
            data = parser.take_rest() if END in events else b""
    return joined(found)


def joined(events: Sequence[object]) -> list[object]:
    found: list[object] = []
    for event in events:
        if isinstance(event, bytes):
            assert event
            if found and isinstance(found[-1], bytes):
                found[-1] += event
                continue
        found.append((event.reason, event.status, event.text) if isinstance(event, Refused) else event)
    return found


def only(data: bytes) -> list[object]:
    return read([data])


def refusal(events: Sequence[object]) -> object:
    assert isinstance(events[-1], tuple), events
    return events[-1][1]


def test_a_request_without_a_body_is_whole_with_its_head() -> None:
    (read_one, end) = only(head("mcp-session-id: x", "X-TWICE: a", "x-twice: \tb ", first="GET /a?b=c HTTP/1.1"))
    headers = {"Host": "127.0.0.1", "Mcp-Session-Id": "x", "X-Twice": "a,b"}
    assert read_one == RequestHead("GET", "/a?b=c", "HTTP/1.1", headers)
    assert end is END


def test_requests_behind_one_another_are_read_one_at_a_time() -> None:
    parser = RequestParser(MAX_HEAD)
    sent = head("Content-Length: 3") + b"abc" + head(CHUNKED) + b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n" + head()
    first = parser.feed(sent)
    assert first[1:] == [b"abc", END]
    assert not parser.has_begun
    second = parser.feed(parser.take_rest())
    assert second[1:] == [b"def", END]
    assert parser.feed(parser.take_rest())[1:] == [END]
    assert parser.take_rest() == b""


def test_a_head_has_begun_with_its_first_byte_and_until_its_last() -> None:
    parser = RequestParser(MAX_HEAD)
    assert not parser.has_begun
    assert parser.feed(b"G") == []
    assert parser.has_begun
    parser.feed(head("Content-Length: 1")[1:])
    assert not parser.has_begun


def test_a_head_of_the_limit_is_read_and_one_byte_more_refused() -> None:
    padding = MAX_HEAD - len(head("X: "))
    assert only(head("X: " + "x" * padding))[-1] is END
    assert refusal(only(head("X: " + "x" * (padding + 1)))) == 431
    assert refusal(only(b"x" * (MAX_HEAD + 1))) == 431
    assert only(b"x" * MAX_HEAD) == []
    assert only(head("Content-Length: 5000") + bytes(5_000))[-1] is END  # bodies are no heads


def test_a_head_of_as_many_fields_as_allowed_is_read_and_of_one_more_refused() -> None:
    def read(count: int) -> object:
        events = RequestParser(65_536).feed(head(*(f"x{number}:" for number in range(count - 1))))
        return events[-1] if isinstance(events[-1], RequestEnd) else refusal(joined(events))

    assert read(MOST_FIELDS) is END
    assert read(MOST_FIELDS + 1) == 431


@pytest.mark.parametrize("end", [b"\n\n", b"\n\r\n", b"\r\n\n"])
def test_a_head_that_ends_otherwise_is_refused_without_waiting_for_more(end: bytes) -> None:
    assert refusal(only(b"GET / HTTP/1.1" + end)) == 400
    assert refusal(read([b"GET / HTTP/1.1" + end[:1], end[1:]])) == 400


BAD_CHUNKS = (
    b"3;x=y\r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"\r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"0\r\nX: 1\r\n\r\n",
    b"0\r\n\n",
    b"-1\r\n",
    b"3_0\r\n",
    b"f" * 18 + b"\r\n",
    b"10000000001\r\n",
    b"1" * 64,
    b"1;" + b"x" * 100,
)


@pytest.mark.parametrize("body", BAD_CHUNKS)
def test_chunks_are_read_in_one_way_only(body: bytes) -> None:
    assert refusal(only(head(CHUNKED) + body)) == 400


def test_a_size_line_of_the_limit_is_read_and_one_byte_more_refused() -> None:
    assert only(head(CHUNKED) + b"1".zfill(62) + b"\r\na\r\n0\r\n\r\n")[1:] == [b"a", END]
    assert refusal(only(head(CHUNKED) + b"1".zfill(63) + b"\r\na\r\n0\r\n\r\n")) == 400


@pytest.mark.parametrize(
    ("first", "lines", "kept"),
    [
        ("POST / HTTP/1.1", (), True),
        ("POST / HTTP/1.1", ("Connection: CLOSE",), False),
        ("POST / HTTP/1.1", ("Connection: Upgrade", "Upgrade: h2c"), True),
        ("GET / HTTP/1.0", (), False),
        ("GET / HTTP/1.0", ("Connection: Keep-Alive",), True),
        ("POST / HTTP/1.0", ("Connection: keep-alive", "Content-Length: 0"), True),
        ("POST / HTTP/1.0", ("Connection: keep-alive",), False),
    ],
)
def test_who_keeps_the_connection(first: str, lines: tuple[str, ...], kept: bool) -> None:
    """Source: RFC 9112, section 9.3."""
    assert read_head(head(*lines, first=first)).keeps_alive is kept


def test_any_method_that_is_a_token_is_read() -> None:
    """llhttp knows a list of them; what is not served is refused by who serves, with 405."""
    for method in ("TRACK", "CONNECT", "PRI", "SOURCE", "x!"):
        read_one, end = only(head(first=f"{method} /mcp HTTP/1.1"))
        assert isinstance(read_one, RequestHead)
        assert (read_one.method, end) == (method, END)


@pytest.mark.parametrize("name", ["Authorization", "proxy-authorization", "COOKIE", "Mcp-Session-Id"])
def test_what_gives_access_is_not_kept_for_the_next_head(name: str) -> None:
    for _ in range(2):
        read_one = only(head(f"{name}: of {name}", "User-Agent: kept"))[0]
        assert isinstance(read_one, RequestHead)
        assert f"of {name}" in read_one.headers.values()
    assert b"User-Agent: kept" in _known_fields
    assert not any(f"of {name}".encode() in line for line in _known_fields)


def test_so_many_lines_are_kept_and_none_that_is_long() -> None:
    for number in range(3 * _MOST_KEPT_LINES):
        read_one = only(head(f"X: {number}"))[0]
        assert isinstance(read_one, RequestHead)
        assert read_one.headers["X"] == str(number)
        assert len(_known_fields) <= _MOST_KEPT_LINES
    longest, longer = "X: ".ljust(_LONGEST_KEPT_LINE, "x"), "X: ".ljust(_LONGEST_KEPT_LINE + 1, "x")
    only(head(longest, longer))
    assert longest.encode() in _known_fields
    assert longer.encode() not in _known_fields


def test_a_line_that_was_refused_once_is_refused_again() -> None:
    for _ in range(2):
        assert refusal(only(head("X : 1"))) == 400


# ---- any bytes

LATIN = st.characters(max_codepoint=255)
OF_FRAMING = ["Host", "host", "Content-Length", "content-length", "Transfer-Encoding", "Connection", "Upgrade", "Expect"]
NAMES = st.sampled_from([*OF_FRAMING, "X", "X Y", "", "\xe9"])
KNOWN_VALUES = ["127.0.0.1", "chunked", "Chunked", "close", "Upgrade", "h2c", "0", "3", " 3 ", "+3", "3, 3", "", "\t", "a\tb"]
VALUES = st.one_of(st.sampled_from(KNOWN_VALUES), st.text(LATIN, max_size=8))
LINES = st.one_of(
    st.builds("{}:{}".format, NAMES, VALUES),
    st.sampled_from([HOST, CHUNKED, "Content-Length: 3", " folded", "\tfolded", "no colon", "X : 1"]),
    st.text(LATIN, max_size=12),
)
KNOWN_FIRST = ["GET / HTTP/1.1", "POST /mcp HTTP/1.1", "GET / HTTP/1.0", "CONNECT x HTTP/1.1", "GET /\xa0 HTTP/1.1", "GET /"]
FIRST = st.one_of(st.sampled_from(KNOWN_FIRST), st.text(LATIN, max_size=20))
HEADS = st.builds(lambda first, lines: "\r\n".join([first, *lines, "", ""]).encode("latin-1"), FIRST, st.lists(LINES, max_size=6))
KNOWN_BODIES = [b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"1\r\na\r\n02\r\nbc\r\n0\r\n\r\n", b"0\r\n\r\n", b""]
BODIES = st.one_of(st.sampled_from(KNOWN_BODIES), st.binary(max_size=20))
STREAMS = st.lists(
    st.one_of(
        st.builds(lambda start, body: start + body, HEADS, BODIES),
        st.just(head("Content-Length: 3") + b"abc"),
        st.just(head(CHUNKED) + b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        st.just(head()),
    ),
    max_size=4,
).map(b"".join)


def as_tornado(data: bytes) -> tuple[str, dict[str, str]] | None:
    """(request line, headers); None where it is refused."""
    try:
        check_lines(data)
        line, headers = HTTP1Connection._parse_headers(None, data)  # type: ignore[arg-type]
        listed = headers.get_list
        check_fields(line, listed("Host"), listed("Content-Length"), listed("Transfer-Encoding"))
    except (Refused, HTTPInputError):
        return None
    return line, dict(headers.items())


@given(HEADS)
def test_a_head_is_read_as_tornado_reads_it_or_refused_as_there(data: bytes) -> None:
    end = data.find(b"\r\n\r\n") + 4
    try:
        found = read_head(data[:end])
    except Refused as refused:
        assert (refused.reason, refused.status) == ("invalid_request", 400)
        assert as_tornado(data[:end]) is None
    else:
        assert as_tornado(data[:end]) == (f"{found.method} {found.target} {found.version}", found.headers)


@given(STREAMS, st.lists(st.integers(0, 400), max_size=8))
def test_any_split_of_the_bytes_gives_what_the_whole_gives(data: bytes, cuts: list[int]) -> None:
    whole = only(data)
    places = [0, *sorted(each for each in cuts if each < len(data)), len(data)]
    parts = [data[start:end] for start, end in pairwise(places)]
    assert read(parts) == whole
    assert read([data[at : at + 1] for at in range(len(data))]) == whole


@given(st.binary(max_size=300))
def test_any_bytes_end_in_events_or_a_refusal(data: bytes) -> None:
    events: list[Event] = []
    for prefix in (b"", head(CHUNKED), head("Content-Length: 9"), b"GET / HTTP/1.1\r\n"):
        events = RequestParser(MAX_HEAD).feed(prefix + data)
        assert [each for each in events[:-1] if isinstance(each, Refused)] == []
        assert sum(each is END for each in events) <= 1


@given(BODIES)
def test_chunks_that_are_read_are_those_that_llhttp_reads(body: bytes) -> None:
    events = only(head(CHUNKED) + body)
    if END not in events or isinstance(events[-1], tuple):
        return
    parts: list[bytes] = []

    class Reader:
        on_body = staticmethod(parts.append)

    httptools.HttpRequestParser(Reader()).feed_data(head(CHUNKED) + body)
    assert b"".join(parts) == b"".join(each for each in events if isinstance(each, bytes))
