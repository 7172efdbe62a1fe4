"""One connection of a client: its requests, one after the other, and how it ends where one never becomes whole."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import cast

import attrs
from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import HTTPHeaders, HTTPInputError, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .request_head import check_fields, check_lines, malformed
from .waiting_connections import WaitingConnections

_logger = logging.getLogger(__name__)


@attrs.frozen
class Peer:
    """Who is at the other end of a connection: what Tornado calls its context."""

    remote_ip: str


class RequestDelegate(HTTPMessageDelegate):
    """Takes one request as it is read."""

    def over(self) -> None:
        """Nothing is left of it: it is answered, was cut off, or its connection serves another protocol now. Called once."""
        raise NotImplementedError


class ClientConnection(HTTP1ServerConnection):
    """Reads requests and has them answered. Between them it waits, as `WaitingConnections` allows.

    holder: see `waiting_connections.Waiter`. on_crowd: called where it waits beyond what there may be.
    """

    def __init__(
        self,
        stream: IOStream,
        params: HTTP1ConnectionParameters,
        peer: Peer,
        holder: str,
        waiting: WaitingConnections[ClientConnection],
        on_crowd: Callable[[], None],
    ) -> None:
        super().__init__(stream, params, peer)
        self.holder = holder
        self.has_served = False
        self._waiting = waiting
        self._on_crowd = on_crowd

    @property
    def has_begun(self) -> bool:
        return self.stream._read_buffer_size > 0

    def end_waiting(self, refused: Refused, bound: str) -> None:
        """Close it where it waits: a client that has begun a request reads why, to one that has not there is nothing to say."""
        metrics.bounds_reached_total.labels(bound).inc()
        self.stream.close(refused if self.has_begun else False)

    def head_is_whole(self) -> None:
        self._waiting.leave(self)

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        """As Tornado's own, which has no place to tell what is waited for."""
        try:
            while True:
                if not self._waiting.wait(self, time.monotonic()):
                    self._on_crowd()
                request = _Request(self)
                incoming = cast(RequestDelegate, delegate.start_request(self, request))
                try:
                    is_open = await request.read_response(incoming)
                finally:
                    incoming.over()
                if not is_open:
                    return
                self.has_served = True
                await asyncio.sleep(0)
        except (StreamClosedError, UnsatisfiableReadError, asyncio.CancelledError):
            pass
        except Refused as refused:
            self.stream.close(False if request.has_answered else refused)
        except Exception:
            _logger.exception("a connection of a client failed")
            self.stream.close()
        finally:
            if self.stream.error is not None:  # its traceback holds the stream and the answer that was being written, in a circle
                self.stream.error.__traceback__ = None
            self._waiting.leave(self)
            delegate.on_close(self)


class _Request(HTTP1Connection):
    """One request on a connection, and the way of its answer."""

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection.stream, False, connection.params, connection.context)
        self._client = connection

    @property
    def has_answered(self) -> bool:
        return self._write_finished

    def _parse_headers(self, data: bytes) -> tuple[str, HTTPHeaders]:
        """Raises: Refused, for which the connection is closed."""
        self._client.head_is_whole()
        check_lines(data)
        try:
            request_line, headers = super()._parse_headers(data)
        except HTTPInputError as error:
            raise malformed(f"the head is malformed: {error}") from None
        listed = headers.get_list
        check_fields(request_line, listed("Host"), listed("Content-Length"), listed("Transfer-Encoding"))
        return request_line, headers

    async def _read_chunked_body(self, delegate: HTTPMessageDelegate) -> None:
        try:
            await super()._read_chunked_body(delegate)
        except HTTPInputError as error:
            raise malformed(f"the body is not chunked as it should be: {error}") from None
