"""A lean HTTP/1.1 client for one origin: kept-alive connections that carry one exchange at a time, answers parsed by llhttp.

A general client took a quarter of the CPU of a call; this one does only what the wire to an MCP server needs. It follows no
redirect, keeps no cookie and asks no proxy.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import re
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

import aiohappyeyeballs
import httptools
from yarl import URL

from mcp_gateway.transports.ports.deadlines import Deadlines
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined

from .client_tls import ClientTls
from .counted_body import UNFRAMED, CountedBody, Frame

_CONNECT_TIMEOUT_S: Final = 5.0
_SECOND_ADDRESS_S: Final = 0.25  # Source: RFC 8305, section 5, "Connection Attempt Delay"
# Shorter than the 5 s after which common servers close an idle connection: a request never meets a closing one.
_KEEP_ALIVE_S: Final = 4.0
_SWEEP_S: Final = 1.0
_LARGEST_FRAME_BYTES: Final = 65_536
"""Bytes of a head, of a chunk's extensions or of trailers: all that is no body and that the parser keeps."""
_HIGH_WATER_BYTES: Final = 262_144
"""Of a body that nobody has read yet: beyond that the server has to wait."""
_DECODED_AT_ONCE_BYTES: Final = 262_144
_BUFFER: Final = memoryview(bytearray(262_144))
"""What one read may bring; of all connections, for nothing stays in it."""
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""{content coding: zlib's `wbits`}. Source: RFC 9110, section 8.4.1."""
_LARGE_BYTES: Final = 65_536
_NO_TOKEN: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~-]")
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class CannotConnect(Exception):
    """Nothing of the request has been sent. Its cause is the system's own error, where there is one."""


class ExchangeCut(Exception):
    """The connection ended, or what came is no HTTP, before the answer was there.

    before_answer: not a byte of it had come. A kept connection that the server was just closing looks like this, and a server
                   that has died over the request as well.
    """

    def __init__(self, text: str, *, before_answer: bool = False) -> None:
        super().__init__(text)
        self.before_answer = before_answer


class Answer:
    """The head of an answer, and its body as it comes. Valid inside its `async with` block.

    headers: {lower-case name: value}; values of a name that came more than once are joined by ", ".
    """

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers

    @property
    def content_length(self) -> int | None:
        """Bytes of the body as they were announced; None where that is unknown, or they are encoded."""
        length = self.headers.get("content-length")
        return int(length) if length is not None and "content-encoding" not in self.headers else None

    async def read(self) -> bytes:
        """The whole body, however long. Raises: ExchangeCut."""
        return joined(await self.read_framed(UNFRAMED))

    async def read_framed(self, frame: Frame) -> Pieces:
        """The same; what is large and of known length in pieces, if the frame is found around it. Raises: ExchangeCut."""
        length = self.content_length
        if length is None:
            return b"".join([part async for part in self.parts()])
        if self._connection.is_complete:  # as most are: it came with the head
            return self._connection.take_parts()
        return await self._connection.read_counted(length, frame)

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, decoded. Raises: ExchangeCut."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        if encoding == "identity":
            async for part in self._connection.parts():
                yield part
            return
        if encoding not in _WINDOWS:
            raise ExchangeCut(f"the answer is encoded as {encoding[:20]!r}")
        try:
            decoder = zlib.decompressobj(_WINDOWS[encoding])
            async for part in self._connection.parts():
                while part:
                    decoded = decoder.decompress(part, _DECODED_AT_ONCE_BYTES)
                    part = decoder.unconsumed_tail
                    if decoded:
                        yield decoded
        except zlib.error as error:
            raise ExchangeCut("the answer is no valid compression") from error
        if not decoder.eof:
            raise ExchangeCut("the answer's compression has no end")


class Http1Client:
    """Exchanges with one origin. How many run at once is up to the caller.

    url:     where; only scheme, host, port and user count. A user becomes Basic credentials.
    headers: sent with each request, unless it names its own.
    tls:     for a URL of https.
    """

    def __init__(self, url: str, headers: Mapping[str, str], tls: ClientTls | None = None) -> None:
        origin = URL(url)
        assert origin.raw_host is not None
        assert origin.port is not None
        self._host, self._port = origin.raw_host, origin.port
        self._tls = (tls or ClientTls()) if origin.scheme == "https" else None
        own = {"Host": origin.host_port_subcomponent or "", **headers}
        if origin.user is not None:
            credentials = f"{origin.user}:{origin.password or ''}".encode()
            own["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
        self._lines = _lines(own)
        self.deadlines = Deadlines()
        # {whether they carry what may be repeated: the one that was used last is at the end, and used next}
        self._idle: dict[bool, list[_Connection]] = {True: [], False: []}
        self._open: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def request(
        self,
        verb: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        timeout_s: float | None = None,
        *,
        may_repeat: bool = False,
    ) -> AbstractAsyncContextManager[Answer]:
        """Ask; the block begins when the head of the answer is there.

        url:        of this origin.
        timeout_s:  until the end of the block; None for no limit. Connecting has a limit of its own.
        may_repeat: whether the caller asks again where the connection was cut before the answer. What may not be repeated has
                    connections apart: a server that fails at a notification after it has said 202 closes the connection a
                    little later, and would take along the next call, whoever's it is.

        Raises: ValueError for a header that cannot be sent; to begin the block CannotConnect, ExchangeCut, TimeoutError.
        """
        head = _head(verb, _target(url), {**self._lines, **_lines(headers)}, body)
        return _Asking(self, head, body, timeout_s, may_repeat=may_repeat)

    async def close(self) -> None:
        """End all connections, exchanges included."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.transport.abort()

    # ---- connections

    async def connection(self, *, may_repeat: bool) -> _Connection:
        """One for an exchange, kept or new, to be given back. Raises: CannotConnect."""
        return self._idle_connection(may_repeat) or await self._connect()

    def _idle_connection(self, may_repeat: bool) -> _Connection | None:
        too_old_s = time.monotonic() - _KEEP_ALIVE_S
        idle = self._idle[may_repeat]
        while idle:
            connection = idle.pop()
            if connection.idle_since_s >= too_old_s and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    def give_back(self, connection: _Connection, *, may_repeat: bool) -> None:
        """The exchange is over, or has failed."""
        if connection.is_cut_unheard:
            for other in self._idle[may_repeat]:  # a server that restarts, or fails at many messages: who asks again meets none
                other.transport.abort()
        if not connection.is_reusable:
            connection.transport.abort()
            return
        connection.prepare()
        connection.idle_since_s = time.monotonic()
        self._idle[may_repeat].append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        too_old_s = time.monotonic() - _KEEP_ALIVE_S
        for idle in self._idle.values():
            while idle and idle[0].idle_since_s < too_old_s:
                idle.pop(0).transport.abort()
        is_any_left = any(self._idle.values())
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep) if is_any_left else None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_SECOND_ADDRESS_S, interleave=1, loop=loop
                )
                try:
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self._forget),
                        sock=connected,
                        ssl=None if self._tls is None else self._tls.context(),
                        server_hostname=self._host if self._tls else None,
                    )
                except BaseException:
                    connected.close()
                    raise
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise CannotConnect("no connection") from error
        self._open.add(connection)
        return connection

    def _forget(self, connection: _Connection) -> None:
        """It has ended."""
        self._open.discard(connection)
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)


class _Asking:
    """The block of `Http1Client.request`. No generator, of which the event loop would keep account with every call."""

    __slots__ = ("_body", "_client", "_connection", "_deadline", "_head", "_may_repeat")

    _connection: _Connection

    def __init__(self, client: Http1Client, head: bytes, body: bytes, timeout_s: float | None, *, may_repeat: bool) -> None:
        self._client = client
        self._head = head
        self._body = body
        self._deadline = client.deadlines.within(timeout_s)
        self._may_repeat = may_repeat

    async def __aenter__(self) -> Answer:
        self._deadline.__enter__()
        try:
            connection = self._connection = await self._client.connection(may_repeat=self._may_repeat)
            try:
                connection.send(self._head, self._body)
                return await connection.answer()
            except BaseException:
                self._client.give_back(connection, may_repeat=self._may_repeat)
                raise
        except BaseException as error:
            self._deadline.__exit__(type(error), error, error.__traceback__)  # raises TimeoutError where that is why
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._client.give_back(self._connection, may_repeat=self._may_repeat)
        finally:
            self._deadline.__exit__(kind, error, traceback)


class _Connection(asyncio.BufferedProtocol):
    """One exchange after the other: `prepare`, `send`, `answer`, then `parts` of its body, or all of it at once."""

    transport: asyncio.Transport
    idle_since_s = 0.0

    def __init__(self, on_lost: Callable[[_Connection], None]) -> None:
        self._on_lost = on_lost
        self._failure: tuple[str, BaseException | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self.prepare()

    def prepare(self) -> None:
        """Be ready for the next exchange."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._counted: CountedBody | None = None  # read where it stays, past the parser
        self._waiting_bytes = 0
        self._frame_bytes = 0
        self.is_complete = False  # the whole body has come
        self._is_asked = self._has_begun = self._has_head = self._is_past_parser = False
        self._keeps_alive = self._is_spoiled = False

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over, both ways, and the server keeps the connection for another."""
        is_over = self.is_complete and not self._is_spoiled and self._failure is None
        return is_over and self._keeps_alive and not self.transport.is_closing() and not self.transport.get_write_buffer_size()

    @property
    def is_cut_unheard(self) -> bool:
        """Whether it ended before a byte of the answer was here."""
        return self._is_asked and self._failure is not None and not self._has_begun

    def send(self, head: bytes, body: bytes) -> None:
        self._is_asked = True
        if len(body) < _LARGE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    async def answer(self) -> Answer:
        """As soon as its head is there. Raises: ExchangeCut."""
        while not self._has_head:
            await self._wait()
        return Answer(self)

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises: ExchangeCut."""
        while True:
            if self._parts:
                yield self.take_parts()
            elif self.is_complete:
                return
            else:
                await self._wait()

    async def read_counted(self, length: int, frame: Frame) -> Pieces:
        """All of a body of which a part has not come yet. length: as its head says. Raises: ExchangeCut.

        There is room for it once a sixteenth is here: a server that announces much and sends little takes no memory.
        """
        begun = [self.take_parts()]
        while sum(map(len, begun)) < length // 16:
            await self._wait()
            begun.append(self.take_parts())
        if self.is_complete:
            return b"".join(begun)
        self._counted = counted = CountedBody(b"".join(begun), length, frame)
        del begun
        try:
            while not self.is_complete:
                await self._wait()
            return counted.pieces()
        finally:
            counted.release()
            self._counted = None

    def take_parts(self) -> bytes:
        """What has come of the body and was not read yet."""
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._waiting_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self.transport.resume_reading()
        return part

    async def _wait(self) -> None:
        if self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        # What has come before the end is read first.
        if self._failure is not None and not (self.is_complete or self._parts):
            text, cause = self._failure
            raise ExchangeCut(text, before_answer=not self._has_begun) from cause

    def _fail(self, text: str, cause: BaseException | None = None) -> None:
        if self._failure is None:
            self._failure = (text, cause)
        self.transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ---- what comes: asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, size_hint: int) -> memoryview:
        return _BUFFER if self._counted is None else self._counted.missing or _BUFFER

    def buffer_updated(self, byte_count: int) -> None:
        counted = self._counted
        if counted is None or not counted.missing:
            self._received(_BUFFER[:byte_count])
            return
        counted.filled(byte_count)
        if not counted.missing:
            self.is_complete = self._is_past_parser = True
            self._wake()

    def _received(self, data: memoryview) -> None:
        if not self._is_asked:
            self.transport.abort()  # nobody asked
            return
        if self._is_past_parser:
            self._is_spoiled = True
            return
        self._has_begun = True
        self._frame_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._is_spoiled = True
            if not self.is_complete:
                self._fail("what the server sent is no HTTP answer", error)
        if self._frame_bytes > _LARGEST_FRAME_BYTES and not self.is_complete:
            self._fail(f"the server sent more than {_LARGEST_FRAME_BYTES} bytes of headers")
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        ends_with_connection = "content-length" not in self.headers and "transfer-encoding" not in self.headers
        if self._has_head and error is None and self._failure is None and ends_with_connection:
            self.is_complete = True
        if self._failure is None:
            self._failure = ("the server closed the connection", error)
        self._on_lost(self)
        self._wake()

    # ---- what it means: the parser's calls

    def on_message_begin(self) -> None:
        self._is_spoiled = self.is_complete  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # trailers, or a second answer
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        if self._is_spoiled:
            return
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            self.headers = {}
        else:
            self._has_head = True
            self._keeps_alive = self._parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        if self._is_spoiled:
            return
        self._frame_bytes = 0
        self._parts.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _HIGH_WATER_BYTES and not self._is_paused and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        self.is_complete = self._has_head


@functools.lru_cache(maxsize=1024)
def _target(url: str) -> str:
    """What stands in the request line. Source: RFC 9112, section 3.2.1."""
    return URL(url).raw_path_qs


def _lines(headers: Mapping[str, str]) -> dict[str, str]:
    """{lower-case name: line of a head}. Raises: ValueError for a header that cannot be sent."""
    if _NO_TOKEN.search("".join(headers)) or _NO_VALUE.search("".join(headers.values())):
        raise ValueError("a header holds characters that no header may hold")
    return {name.lower(): f"{name}: {value}\r\n" for name, value in headers.items()}


def _head(verb: str, target: str, lines: Mapping[str, str], body: bytes) -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body or verb == "POST" else ""
    return f"{verb} {target} HTTP/1.1\r\n{''.join(lines.values())}{length}\r\n".encode()
