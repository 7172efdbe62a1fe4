"""One kept-alive connection to a server: an exchange at a time, its answer as llhttp parses it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import httptools

from mcp_gateway.transports.ports.read_buffer import read_buffer
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined

from .counted_body import UNFRAMED, CountedBody, Frame

_LARGEST_FRAME_BYTES: Final = 65_536
"""Bytes of a head, of a chunk's extensions or of trailers: all that is no body and that the parser keeps."""
_HIGH_WATER_BYTES: Final = 262_144
"""Of a body that nobody has read yet: beyond that the server has to wait."""
_DECODED_AT_ONCE_BYTES: Final = 262_144
_READ_BYTES: Final = 262_144
_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""{content coding: zlib's `wbits`}. Source: RFC 9110, section 8.4.1."""
_LARGE_BYTES: Final = 65_536


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

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers

    @property
    def content_length(self) -> int | None:
        """Bytes of the body as they were announced; None where that is unknown, or they are encoded."""
        length = self.headers.get("content-length")
        return int(length) if length is not None and "content-encoding" not in self.headers else None

    def let_end(self) -> None:
        """The rest of the body is only its end: leave the block, and the connection may serve again once that has come."""
        self._connection.is_answered = True

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

    def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, decoded. Iterating raises: ExchangeCut."""
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        return _Parts(self._connection) if encoding == "identity" else self._decoded(encoding)

    async def _decoded(self, encoding: str) -> AsyncIterator[bytes]:
        if encoding not in _WINDOWS:
            raise ExchangeCut(f"the answer is encoded as {encoding[:20]!r}")
        try:
            decoder = zlib.decompressobj(_WINDOWS[encoding])
            async for part in _Parts(self._connection):
                while part:
                    decoded = decoder.decompress(part, _DECODED_AT_ONCE_BYTES)
                    part = decoder.unconsumed_tail
                    if decoded:
                        yield decoded
        except zlib.error as error:
            raise ExchangeCut("the answer is no valid compression") from error
        if not decoder.eof:
            raise ExchangeCut("the answer's compression has no end")


class _Parts:
    """A body as it comes. No generator: who has its answer leaves, and a generator that is left before its end costs a task."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    def __aiter__(self) -> _Parts:
        return self

    async def __anext__(self) -> bytes:
        """Raises: ExchangeCut."""
        part = await self._connection.next_part()
        if not part:
            raise StopAsyncIteration
        return part


class ServerConnection(asyncio.BufferedProtocol):
    """One exchange after the other: `prepare`, `send`, `answer`, then its body, part by part or all of it at once.

    on_news:     where nobody awaits, called whenever something has come, or the connection has ended.
    is_answered: whoever asked has what it wants: of the body nothing is missing but its end.
    """

    transport: asyncio.Transport
    idle_since_s = 0.0

    def __init__(self, on_lost: Callable[[ServerConnection], None]) -> None:
        self._on_lost = on_lost
        self._buffer = read_buffer(_READ_BYTES)
        self._failure: tuple[str, BaseException | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.on_news: Callable[[], None] | None = None
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
        self.is_answered = False
        self._is_asked = self._has_begun = self.has_head = self._is_past_parser = False
        self._keeps_alive = self._is_spoiled = False

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over, both ways, and the server keeps the connection for another."""
        is_over = self.is_complete and not self._is_spoiled and self._failure is None
        return is_over and self._keeps_alive and not self.transport.is_closing() and not self.transport.get_write_buffer_size()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of the answer, or nothing that could be trusted."""
        return self.is_complete or self._is_spoiled or self._failure is not None or self.transport.is_closing()

    @property
    def is_cut_unheard(self) -> bool:
        """Whether it ended before a byte of the answer was here."""
        return self._is_asked and self._failure is not None and not self._has_begun

    @property
    def has_failed(self) -> bool:
        """Whether there will be no more of the answer, and it is not whole."""
        return self._failure is not None and not self.is_complete

    @property
    def bytes_here(self) -> int:
        """Of the body, and not read yet."""
        return self._waiting_bytes

    @property
    def body_here(self) -> bytes:
        """Those bytes, for a look: they are not read by that."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def send(self, head: bytes, body: bytes) -> None:
        self._is_asked = True
        if len(body) < _LARGE_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)

    async def answer(self) -> Answer:
        """As soon as its head is there. Raises: ExchangeCut."""
        while not self.has_head:
            await self._wait()
        return Answer(self)

    async def next_part(self) -> bytes:
        """What has come of the body since the last one, as soon as there is some; b"" at its end. Raises: ExchangeCut."""
        while not self._parts:
            if self.is_complete:
                return b""
            await self._wait()
        return self.take_parts()

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
        part = self.body_here
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
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
        elif self.on_news is not None:
            self.on_news()

    # ---- what comes: asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def get_buffer(self, size_hint: int) -> memoryview:
        return self._buffer if self._counted is None else self._counted.missing or self._buffer

    def buffer_updated(self, byte_count: int) -> None:
        counted = self._counted
        if counted is None or not counted.missing:
            self._received(self._buffer[:byte_count])
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
        if self.has_head and error is None and self._failure is None and ends_with_connection:
            self.is_complete = True
        if self._failure is None:
            self._failure = ("the server closed the connection", error)
        self._on_lost(self)
        self._wake()

    # ---- what it means: the parser's calls

    def on_message_begin(self) -> None:
        self._is_spoiled = self.is_complete  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_head:
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
            self.has_head = True
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
        self.is_complete = self.has_head
