"""Requests that another program's HTTP server of Tornado hands over: the gateway mounted into a `tornado.web.Application`.

That server reads requests and holds connections, so its limits on heads, bodies and waiting connections are those that hold; what
the gateway bounds from the dispatch of a request on, it bounds here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .client_connection import AnswerWriter, Peer, RequestDelegate
from .forwarded import network_of
from .tls import client_certificate
from .tornado_answers import answer_whole, begin_answer, detached, write_part


class RequestStarter(Protocol):
    """What makes the delegate of a request: the server of the cell."""

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate: ...


class MountedServer(HTTPServerConnectionDelegate):
    """A target of a rule of `tornado.web.Application`, or of any other router of Tornado.

    find_server: the one that runs now, or None; without one clients read 503.
    """

    def __init__(self, find_server: Callable[[], RequestStarter | None]) -> None:
        self._find_server = find_server

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        assert isinstance(request_conn, HTTP1Connection)
        writer = _Writer(request_conn)
        server = self._find_server()
        if server is None:
            return _NobodyServes(writer)
        delegate = server.start_request(server_conn, cast(HTTPConnection, writer))
        return _MountedRequest(cast(RequestDelegate, delegate), writer)


class _NobodyServes(HTTPMessageDelegate):
    """The gateway has not started, has ended, or is just being started again."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer

    def finish(self) -> None:
        refused = Refused("draining", "the gateway does not run just now")
        body = refused.body()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Retry-After": "1"}
        self._writer.answer(refused.status, headers, body)


class _MountedRequest(HTTPMessageDelegate):
    """Passes on what is read, and tells once that the request is over, as the gateway's own connections do."""

    def __init__(self, delegate: RequestDelegate, writer: _Writer) -> None:
        self._delegate = delegate
        self._writer = writer
        self._is_over = False
        writer.on_end = self._over

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> None:
        self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._delegate.finish()
        if not self._is_over:
            self._writer.when_closed(self._over)

    def on_connection_close(self) -> None:
        self._over()

    def _over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._delegate.over()


class _Writer(AnswerWriter):
    """One request's way to the client on a connection of another server. on_end: called when all was written, or detached."""

    def __init__(self, connection: HTTP1Connection) -> None:
        self._connection = connection
        self._stream = connection.stream
        address = str(getattr(connection.context, "remote_ip", "") or "")
        self._peer = Peer(address, network_of(address) if address else "", lambda: client_certificate(self._stream))
        self.on_end: Callable[[], None] = _nothing

    @property
    def stream(self) -> IOStream:
        return self._stream

    @property
    def peer(self) -> Peer:
        return self._peer

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call back where the client goes before it has its answer."""
        if self._connection.stream is not None:
            self._connection.set_close_callback(callback)

    def answer(self, status: int, headers: Mapping[str, str], body: Pieces) -> None:
        answer_whole(self._connection, status, headers, joined(body))
        self._has_ended()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        begin_answer(self._connection, status, headers)

    def write(self, data: bytes) -> asyncio.Future[None]:
        return write_part(self._connection, data)

    def end(self) -> None:
        self._connection.finish()
        self._has_ended()

    def detach(self) -> IOStream:
        stream = detached(self._connection)
        self._has_ended()
        return stream

    def _has_ended(self) -> None:
        """In the next turn: whoever answers is not done with the request yet."""
        asyncio.get_running_loop().call_soon(self.on_end)


def _nothing() -> None:
    """Nobody has to be told."""
