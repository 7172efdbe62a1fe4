"""What both forms of a client's connection share: who is at its end, how it waits for requests, how it ends without one.

A form reads requests and writes answers: `http1_connection` by llhttp, `tornado_connection` by Tornado's own code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream

from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .tls import ClientCertificate
from .waiting_connections import WaitingConnections


@attrs.frozen
class Peer:
    """Who is at the other end of a connection.

    holder:      whose share of waiting connections it counts in, see `waiting_connections.Waiter`.
    certificate: gives the one that it has shown, or None.
    """

    remote_ip: str
    holder: str
    certificate: Callable[[], ClientCertificate | None]


class AnswerWriter(Protocol):
    """One request's way to the client. Its methods are harmless after the client has gone.

    stream: where the answer goes; for who counts what waits to be sent.
    """

    @property
    def stream(self) -> IOStream: ...

    @property
    def peer(self) -> Peer: ...

    def answer(self, status: int, headers: Mapping[str, str], body: Pieces) -> None:
        """Write the whole of it. Its framing is in `headers`."""

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Write the head of an answer whose end is not known."""

    def write(self, data: bytes) -> asyncio.Future[None]:
        """The future is done when the socket has taken these bytes and all before them. It may fail."""

    def end(self) -> None: ...

    def detach(self) -> IOStream:
        """Nothing of HTTP is read or written any more. What came behind the request is read from the stream."""


class RequestDelegate(HTTPMessageDelegate):
    """Takes one request as it is read: its head, parts of its body, `finish`. `over` comes last, and may come at any time."""

    def head_received(self, method: str, target: str, version: str, headers: dict[str, str]) -> None:
        """See `http1_parser.RequestHead`."""
        raise NotImplementedError

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders) -> None:
        """As Tornado has it."""
        assert isinstance(start_line, RequestStartLine)
        self.head_received(start_line.method, start_line.path, start_line.version, dict(headers.items()))

    def over(self) -> None:
        """Nothing is left of it: it is answered, its client has gone, or its connection serves another protocol. Called once."""
        raise NotImplementedError


class ClientConnection:
    """A connection between two requests: it waits, as `WaitingConnections` allows.

    on_crowd: called where it waits beyond what there may be.
    """

    stream: IOStream

    def __init__(self, peer: Peer, waiting: WaitingConnections[ClientConnection], on_crowd: Callable[[], None]) -> None:
        self.peer = peer
        self.holder = peer.holder
        self.has_served = False
        self._waiting = waiting
        self._on_crowd = on_crowd

    @property
    def has_begun(self) -> bool:
        """Whether a part of the next request is here."""
        return self.stream._read_buffer_size > 0

    def end_waiting(self, refused: Refused, bound: str) -> None:
        """Close it where it waits: a client that has begun a request reads why, to one that has not there is nothing to say."""
        metrics.bounds_reached_total.labels(bound).inc()
        self.stream.close(refused if self.has_begun else False)

    def wait(self) -> None:
        if not self._waiting.wait(self, time.monotonic()):
            self._on_crowd()

    def head_is_whole(self) -> None:
        self._waiting.leave(self)

    def has_ended(self) -> None:
        if self.stream.error is not None:  # its traceback holds the stream and the answer that was being written, in a circle
            self.stream.error.__traceback__ = None
        self._waiting.leave(self)
