"""One connection of a client: its requests as `http1_parser` reads them, and the bytes of their answers.

Beneath Tornado's server and in place of its HTTP/1.1, which cost a quarter of the CPU of a call. The stream stays Tornado's: it
keeps what the socket does not take, and becomes a WebSocket's where the connection is detached.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http.client import responses
from typing import Final, cast

from tornado.httputil import HTTPConnection, HTTPServerConnectionDelegate
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError

from mcp_gateway.transports.ports.read_buffer import read_buffer
from mcp_gateway.transports.protocol.framing.pieces import Pieces
from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .client_connection import ClientConnection, Peer, RequestDelegate
from .http1_parser import Event, RequestHead, RequestParser
from .read_turns import LEAST_BYTES, ReadTurns
from .waiting_connections import WaitingConnections

_logger = logging.getLogger(__name__)

_READ_BYTES: Final = 65_536
_TLS_RECORD_BYTES: Final = 16_384
"""What is decrypted already wakes nobody: a read takes a whole record. Source: RFC 8446, section 5.1."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_LARGE_BYTES: Final = 65_536
"""Of a body that is not copied to stand behind its head: two writes cost less."""
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {reason}" for status, reason in responses.items()}


class Http1Connection(ClientConnection):
    """Reads requests and has them answered, one after the other.

    While an answer is not written, no more of the next request is read than one read brings; it is kept in the stream.
    """

    def __init__(
        self,
        stream: IOStream,
        max_head_bytes: int,
        peer: Peer,
        waiting: WaitingConnections[ClientConnection],
        on_crowd: Callable[[], None],
    ) -> None:
        super().__init__(peer, waiting, on_crowd)
        self.stream = stream
        self._buffer = read_buffer(_READ_BYTES)
        self._delegate: HTTPServerConnectionDelegate
        self._parser = RequestParser(max_head_bytes)
        self._turns = ReadTurns(_READ_BYTES, _TLS_RECORD_BYTES if isinstance(stream, SSLIOStream) else LEAST_BYTES)
        self._exchange: Http1Exchange | None = None
        self._incoming: RequestDelegate | None = None
        self._is_receiving = False
        self._is_over = False

    @property
    def has_begun(self) -> bool:
        return self._parser.has_begun or super().has_begun

    # ---- life, as the server calls it

    def start_serving(self, delegate: HTTPServerConnectionDelegate) -> None:
        self._delegate = delegate
        self.stream.set_close_callback(self._end)
        self.wait()
        if isinstance(self.stream, SSLIOStream):
            self.stream.wait_for_handshake().add_done_callback(lambda _: self._start_reading())
        else:
            self._start_reading()

    async def close(self) -> None:
        self.stream.close()
        self._end()

    def _start_reading(self) -> None:
        if not self.stream.closed():
            self.stream.set_nodelay(True)  # what is written is whole, and whoever waits for it shall not wait for more
            self.stream._handle_read = self._readable  # type: ignore[method-assign]

    def _end(self) -> None:
        """The stream is closed, or another's."""
        if self._is_over:
            return
        self._is_over = True
        self.stream.__dict__.pop("_handle_read", None)  # of this object: the method of its class is there again
        self._let_go()
        self.has_ended()
        self._delegate.on_close(self)

    # ---- reading

    def _readable(self) -> None:
        """In place of the stream's own, in which each byte goes through a buffer and each read through a future."""
        stream = self.stream
        if stream._read_buffer_size:
            return  # what has come already is read first; the stream asks for no more while it keeps something
        if self._exchange is not None and self._exchange.is_whole:
            type(stream)._handle_read(stream)  # which sees the client's end, or keeps what comes
            return
        try:
            byte_count = stream.read_from_fd(self._buffer[: self._turns.byte_count])
        except OSError as error:
            stream.close(error)
            return
        if byte_count == 0:
            stream.close()
        elif byte_count is not None:
            self._receive(bytes(self._buffer[:byte_count]))
            self._turns.took(self._parser.chunk_count)

    def _read_kept(self) -> None:
        """What came behind the request before."""
        stream = self.stream
        if not self._is_over and stream._read_buffer_size:
            kept: asyncio.Future[bytes] = stream.read_bytes(stream._read_buffer_size)  # type: ignore[assignment]
            self._receive(kept.result())

    def _receive(self, data: bytes) -> None:
        self._is_receiving = True
        try:
            for event in self._parser.feed(data):
                self._take(event)
                if self._is_over or self.stream.closed():
                    break
        except Exception:
            _logger.exception("a connection of a client failed")
            self.stream.close()
        finally:
            self._is_receiving = False
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.is_detached:
            self._end()
        elif exchange.is_sent:
            self._go_on(exchange)

    def _take(self, event: Event) -> None:
        exchange = self._exchange
        if isinstance(event, RequestHead):
            self.head_is_whole()
            self._exchange = exchange = Http1Exchange(self, event)
            incoming = cast(RequestDelegate, self._delegate.start_request(self, cast(HTTPConnection, exchange)))
            self._incoming = incoming
            incoming.head_received(event.method, event.target, event.version, event.headers)
            if event.headers.get("Expect", "").lower() == "100-continue":
                exchange.go_ahead()
        elif isinstance(event, Refused):
            self.stream.close(False if exchange is not None and exchange.has_answered else event)
        else:
            assert exchange is not None
            assert self._incoming is not None
            if isinstance(event, bytes):
                self._incoming.data_received(event)
            else:
                exchange.is_whole = True
                self._keep(self._parser.take_rest())
                self._incoming.finish()

    def _keep(self, rest: bytes) -> None:
        """Where who reads from the stream finds it."""
        if rest:
            self.stream._read_buffer += rest
            self.stream._read_buffer_size += len(rest)

    # ---- between two requests

    def sent(self, exchange: Http1Exchange) -> None:
        """The socket has taken the whole answer."""
        if not self._is_receiving and not self._is_over:
            self._go_on(exchange)

    def detached(self) -> None:
        self.stream.set_close_callback(None)
        if not self._is_receiving:
            self._end()

    def _go_on(self, exchange: Http1Exchange) -> None:
        if not exchange.keeps_alive:
            self.stream.close()
            return
        self._let_go()
        self.has_served = True
        self.wait()
        if self.stream._read_buffer_size:
            asyncio.get_running_loop().call_soon(self._read_kept)  # one request a turn: others have theirs

    def _let_go(self) -> None:
        """Of the current request, if there is one: whoever serves it must not keep the connection, nor this the request."""
        incoming, self._exchange, self._incoming = self._incoming, None, None
        if incoming is not None:
            incoming.over()


class Http1Exchange:
    """One request on a connection, and the way of its answer.

    is_whole: the request. has_answered: all of the answer is written. is_sent: and the socket has taken it.
    """

    __slots__ = (
        "_connection",
        "_head",
        "_is_chunked",
        "_unsent_head",
        "has_answered",
        "is_detached",
        "is_sent",
        "is_whole",
        "keeps_alive",
        "stream",
    )

    def __init__(self, connection: Http1Connection, head: RequestHead) -> None:
        self._connection = connection
        self._head = head
        self._is_chunked = False
        self._unsent_head = b""
        self.stream = connection.stream
        self.is_whole = self.has_answered = self.is_sent = self.is_detached = False
        self.keeps_alive = head.keeps_alive

    @property
    def peer(self) -> Peer:
        return self._connection.peer

    def go_ahead(self) -> None:
        """Let the client send its body, unless it has its answer. Source: RFC 9110, section 10.1.1."""
        if self._head.version == "HTTP/1.1" and not self.has_answered and not self.stream.closed():
            self._send(_CONTINUE)

    # ---- answering

    def answer(self, status: int, headers: Mapping[str, str], body: Pieces) -> None:
        if not self.stream.closed():
            head = self._answer_head(status, headers)
            if isinstance(body, bytes) and len(body) < _LARGE_BYTES:
                self._send(head + body)
            else:
                for piece in (head, body) if isinstance(body, bytes) else (head, *body):
                    if not self.stream.closed():
                        self._send(piece)
            self._answered()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        if self._head.version == "HTTP/1.1":
            self._is_chunked = self._head.method != "HEAD"
            headers = {**headers, "Transfer-Encoding": "chunked"}
        else:
            self.keeps_alive = False  # a body without a length has no other end. Source: RFC 9112, section 6.3
        # In one piece with what is written at once, as a rule; by itself if nothing is.
        self._unsent_head = self._answer_head(status, headers)
        asyncio.get_running_loop().call_soon(self._send_head)

    def _send_head(self) -> None:
        head, self._unsent_head = self._unsent_head, b""
        if head and not self.stream.closed():
            self._send(head)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        sent: asyncio.Future[None]
        if self.has_answered or self.stream.closed():
            sent = asyncio.get_running_loop().create_future()
            sent.set_exception(StreamClosedError())
            sent.exception()
            return sent
        if self._head.method == "HEAD":
            chunk = b""
        elif self._is_chunked and chunk:
            chunk = b"%b%x\r\n%b\r\n" % (self._unsent_head, len(chunk), chunk)
            self._unsent_head = b""
        self._send_head()
        waiting = self._send(chunk)
        if waiting is None:
            sent = asyncio.get_running_loop().create_future()
            sent.set_result(None)
            return sent
        return waiting

    def end(self) -> None:
        if not self.has_answered and not self.stream.closed():
            self._send_head()
            if self._is_chunked:
                self._send(_LAST_CHUNK)
            self._answered()

    def detach(self) -> IOStream:
        self.is_detached = True
        self._connection.detached()
        return self.stream

    def _answer_head(self, status: int, headers: Mapping[str, str]) -> bytes:
        """Raises: ValueError for a header that cannot be sent."""
        if not self.is_whole or headers.get("Connection") == "close":
            self.keeps_alive = False
        if self._head.version == "HTTP/1.0":
            if self.keeps_alive:
                headers = {**headers, "Connection": "Keep-Alive"}
        elif not self.keeps_alive:
            headers = {**headers, "Connection": "close"}
        lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        text = "\r\n".join(lines)
        if text.count("\r") != len(lines) - 1 or text.count("\n") != len(lines) - 1:
            raise ValueError(f"a header of an answer has a line end in it: {text[:200]!r}")
        return text.encode("latin-1") + b"\r\n\r\n"

    def _answered(self) -> None:
        self.has_answered = True
        if self.stream.closed():
            return
        if self.stream.writing():
            self.stream.write(b"").add_done_callback(self._sent)
        else:
            self._sent()

    def _sent(self, _: object = None) -> None:
        if not self.stream.closed():
            self.is_sent = True
            self._connection.sent(self)

    def _send(self, data: bytes) -> asyncio.Future[None] | None:
        """None where the socket has taken it all, as it does as a rule; the stream's own way takes four times as long."""
        stream = self.stream
        if stream.writing() or isinstance(stream, SSLIOStream):
            return stream.write(data)
        try:
            sent_count = stream.socket.send(data)
        except BlockingIOError:
            sent_count = 0
        except OSError as error:
            stream.close(error)
            return None
        return None if sent_count == len(data) else stream.write(memoryview(data)[sent_count:])
