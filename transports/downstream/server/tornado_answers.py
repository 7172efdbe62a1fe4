"""How an answer is written on Tornado's own HTTP/1.1 connection, whoever reads requests from it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http.client import responses

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.iostream import IOStream


def answer_whole(connection: HTTP1Connection, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """As `AnswerWriter.answer`."""
    if headers.get("Connection") == "close":
        connection._disconnect_on_finish = True
    connection.write_headers(_status_line(status), HTTPHeaders(headers), body)
    connection.finish()


def begin_answer(connection: HTTP1Connection, status: int, headers: Mapping[str, str]) -> None:
    """As `AnswerWriter.begin`."""
    assert connection._request_start_line is not None
    if connection._request_start_line.version == "HTTP/1.0":
        _end_by_closing(connection)
    # Of two small events in a row the second would wait for the client's word about the first. RFC 1122, section 4.2.3.4.
    connection.stream.set_nodelay(True)
    connection.write_headers(_status_line(status), HTTPHeaders(headers))


def write_part(connection: HTTP1Connection, chunk: bytes) -> asyncio.Future[None]:
    """As `AnswerWriter.write`."""
    written = HTTP1Connection.write(connection, chunk)
    if connection.stream.closed():
        return written
    # Of writes that overlap, Tornado's connection ends only the last one's future, and too early: it keeps a single one.
    assert connection._pending_write is not None
    return connection._pending_write


def detached(connection: HTTP1Connection) -> IOStream:
    """As `AnswerWriter.detach`."""
    stream = HTTP1Connection.detach(connection)
    stream.set_nodelay(True)  # the HTTP server does so at the end of each answer, and there will be none
    return stream


def _end_by_closing(connection: HTTP1Connection) -> None:
    """A body without a length has no other end in HTTP/1.0, also where the client has asked for the connection to stay.

    Source: RFC 9112, section 6.3.
    """
    assert connection._request_headers is not None
    connection._disconnect_on_finish = True
    connection._request_headers["Connection"] = "close"  # else Tornado would promise to keep it


def _status_line(status: int) -> ResponseStartLine:
    return ResponseStartLine("HTTP/1.1", status, responses.get(status, "Unknown"))
