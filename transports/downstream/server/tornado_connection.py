"""One connection of a client over Tornado's own HTTP/1.1: what may be set in place of `http1_connection`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import cast

from tornado.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from tornado.httputil import HTTPHeaders, HTTPInputError, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.iostream import IOStream, StreamClosedError, UnsatisfiableReadError

from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .client_connection import ClientConnection, Peer, RequestDelegate
from .request_head import check_fields, check_lines, malformed
from .tornado_answers import answer_whole, begin_answer, detached, write_part
from .waiting_connections import WaitingConnections

_logger = logging.getLogger(__name__)


class TornadoConnection(ClientConnection, HTTP1ServerConnection):
    """Reads requests and has them answered, one after the other."""

    def __init__(
        self,
        stream: IOStream,
        params: HTTP1ConnectionParameters,
        peer: Peer,
        waiting: WaitingConnections[ClientConnection],
        on_crowd: Callable[[], None],
    ) -> None:
        HTTP1ServerConnection.__init__(self, stream, params, peer)
        ClientConnection.__init__(self, peer, waiting, on_crowd)

    async def _server_request_loop(self, delegate: HTTPServerConnectionDelegate) -> None:
        """As Tornado's own, which has no place to tell what is waited for."""
        try:
            while True:
                self.wait()
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
            self.has_ended()
            delegate.on_close(self)


class _Request(HTTP1Connection):
    """One request on a connection, and the way of its answer."""

    def __init__(self, connection: TornadoConnection) -> None:
        super().__init__(connection.stream, False, connection.params, connection.context)
        self._client = connection
        self.peer = connection.peer

    @property
    def has_answered(self) -> bool:
        return self._write_finished

    # ---- reading

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

    # ---- answering

    def answer(self, status: int, headers: Mapping[str, str], body: Pieces) -> None:
        answer_whole(self, status, headers, joined(body))

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        begin_answer(self, status, headers)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        return write_part(self, chunk)

    def end(self) -> None:
        self.finish()

    def detach(self) -> IOStream:
        return detached(self)
