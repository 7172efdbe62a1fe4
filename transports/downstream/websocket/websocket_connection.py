"""One WebSocket of a client: frames and messages, close codes, pings, what may wait for a slow reader."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Final, Protocol

from tornado.iostream import IOStream, StreamClosedError
from websockets.frames import CONT, CTRL_OPCODES, TEXT, CloseCode, Frame
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from mcp_gateway.transports.downstream.server.buffered_bytes import HeldBytes
from mcp_gateway.transports.downstream.server.message_deadline import OVERDUE, due_s
from mcp_gateway.transports.downstream.server.read_turns import ReadTurns
from mcp_gateway.transports.ports.loop_tasks import retrieve
from mcp_gateway.transports.telemetry import metrics

_READ_BYTES: Final = 16_384
_PIECE_BYTES: Final = 262_144
MOST_UNSENT_BYTES: Final = 262_144
"""A client that has so much to read is heard again once it has read: what it asks for must not pile up here."""
_CLOSE_TIMEOUT_S: Final = 5.0
"""How long a client may take to close its side after the close frame. Reading on meanwhile lets it see the code, not a reset."""

_logger = logging.getLogger(__name__)


class SocketUser(Protocol):
    """What speaks over a WebSocket."""

    def take(self, data: bytes, is_text: bool) -> None:
        """One message; of a text message the bytes are UTF-8."""

    def closed(self) -> None:
        """The connection takes no more messages. Called once, however it came to that."""

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        """Call back once nothing that the client asked for is open, now or later; for a drain."""

    def log_out(self, on_idle: Callable[[], None]) -> None:
        """What the client has shown has ended: tell it no more news, begin nothing for it; `on_idle` as above."""


class WebSocket:
    """One connection after its upgrade: messages out of frames, frames out of messages. Frames and codes are `websockets`' work.

    held:       of a message that is not whole.
    on_written: called after each write.

    Source: RFC 6455, sections 5 to 7.
    """

    __slots__ = (
        "_backlog",
        "_began_s",
        "_heard_s",
        "_held",
        "_is_over",
        "_on_end",
        "_on_written",
        "_parts",
        "_pinged_s",
        "_protocol",
        "_stream",
        "_text",
        "_turns",
        "_unsent_bytes",
        "user",
    )

    def __init__(
        self,
        stream: IOStream,
        protocol: ServerProtocol,
        held: HeldBytes,
        on_end: Callable[[WebSocket], None],
        on_written: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._protocol = protocol
        self._held = held
        self._on_end = on_end
        self._on_written = on_written
        self._began_s: float | None = None  # when the message began that is not whole
        self._parts: bytearray | None = None  # of a message in fragments
        self._text = False
        self._turns = ReadTurns(_READ_BYTES)
        self._unsent_bytes = 0
        self._backlog: asyncio.Future[None] | None = None
        self._is_over = False
        self._heard_s = time.monotonic()
        self._pinged_s: float | None = None
        self.user: SocketUser

    # ---- sending

    @property
    def is_open(self) -> bool:
        return self._protocol.state is OPEN and not self._stream.closed()

    @property
    def unsent_bytes(self) -> int:
        """What waits for the client to read."""
        return self._unsent_bytes

    def send(self, data: bytes, *, is_text: bool = True) -> asyncio.Future[None] | None:
        """Send one message; the future is done when the socket has taken it. None where the connection takes none any more."""
        if not self.is_open:
            return None
        if is_text:
            self._protocol.send_text(data)
        else:
            self._protocol.send_binary(data)
        return self._flush()

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; the client reads the code and the reason."""
        if self.is_open:
            self._protocol.send_close(code, _shortened(reason))
            self._flush()
            self._lose()

    def fail(self, code: int, reason: str) -> None:
        """End a connection that cannot go on: nothing more of it is read."""
        if self.is_open:
            self._protocol.fail(code, _shortened(reason))
            self._flush()
            self._lose()

    def abort(self) -> None:
        self._stream.close()

    def keep_alive(self, now_s: float, interval_s: float, timeout_s: float) -> None:
        """Ping a client that has been silent for the interval; give up on one that stays silent.

        Whatever it sends is a sign of life, and so is that it reads where much waits for it. One that does not read does not see
        the ping either, which is no excuse.
        """
        if self._pinged_s is not None and self._heard_s < self._pinged_s:
            if now_s - self._pinged_s >= timeout_s:
                self.fail(CloseCode.INTERNAL_ERROR, f"no pong within {timeout_s:g} s")
        elif now_s - self._heard_s >= interval_s and self.is_open:
            self._pinged_s = now_s
            self._protocol.send_ping(b"")
            self._flush()

    def give_up_slow(self, now_s: float) -> None:
        """End it where a message does not become whole in its time."""
        if self._began_s is not None and now_s > due_s(self._began_s, self._held.byte_count) and self.is_open:
            metrics.bounds_reached_total.labels("messages").inc()
            self.fail(CloseCode.POLICY_VIOLATION, OVERDUE)

    def _flush(self) -> asyncio.Future[None] | None:
        written: asyncio.Future[None] | None = None
        for data in self._protocol.data_to_send():
            if self._stream.closed():
                break
            if not data:
                self._stream.write(b"").add_done_callback(self._half_close)
            for start in range(0, len(data), _PIECE_BYTES):  # in pieces, so that a slow client is seen to read
                written = self._write(data if len(data) <= _PIECE_BYTES else data[start : start + _PIECE_BYTES])
        self._on_written()
        return written

    def _write(self, piece: bytes) -> asyncio.Future[None]:
        written: asyncio.Future[None] = self._stream.write(piece)
        if written.done():
            retrieve(written)
        else:
            self._unsent_bytes += len(piece)
            written.add_done_callback(lambda done: self._sent(done, len(piece)))
        return written

    def _sent(self, written: asyncio.Future[None], size: int) -> None:
        retrieve(written)
        self._unsent_bytes -= size
        if self._backlog is None:
            return
        self._heard_s = time.monotonic()  # there is more than the system would buffer: the client has read
        if self._unsent_bytes <= MOST_UNSENT_BYTES:
            self._stop_waiting()

    def _half_close(self, written: asyncio.Future[None]) -> None:
        """Say that nothing follows. The client still may be sending: closing at once would reset what it has not read."""
        if not written.cancelled() and written.exception() is None and not self._stream.closed():
            try:
                self._stream.socket.shutdown(socket.SHUT_WR)
            except OSError:  # the client was faster
                self._stream.close()

    # ---- reading

    async def run(self) -> None:
        """Read until the connection ends, one way or another."""
        try:
            while True:
                reading: asyncio.Future[bytes] = self._stream.read_bytes(self._turns.byte_count, partial=True)  # type: ignore[assignment]
                if reading.done():
                    await asyncio.sleep(0)  # a client that sends without pause must not keep the loop to itself
                self._turns.took(self._take(await reading))
                if self._unsent_bytes > MOST_UNSENT_BYTES and self.is_open:
                    await self._until_sent()
        except StreamClosedError:
            pass
        except Exception:
            _logger.exception("a WebSocket failed")
            self._stream.close()
        finally:
            self._lose()
            self._held.release()
            self._on_end(self)

    async def _until_sent(self) -> None:
        self._backlog = asyncio.get_running_loop().create_future()
        self._stream.set_close_callback(self._stop_waiting)
        await self._backlog
        self._stream.set_close_callback(None)
        self._backlog = None
        if self._began_s is not None:
            self._began_s = time.monotonic()  # it was not heard meanwhile

    def _stop_waiting(self) -> None:
        if self._backlog is not None and not self._backlog.done():
            self._backlog.set_result(None)

    def _take(self, chunk: bytes) -> int:
        """How many frames these bytes made whole."""
        self._heard_s = time.monotonic()
        self._protocol.receive_data(chunk)
        if (error := self._protocol.parser_exc) is not None:
            # Its frames hold what was read, up to a whole message, and are part of a circle of references.
            error.__traceback__ = None
        frames = self._protocol.events_received()
        for frame in frames:
            assert isinstance(frame, Frame)
            if frame.opcode not in CTRL_OPCODES and not self._is_over:
                self._take_frame(frame)
            if self._parts is None:
                self._began_s = None
        self._count_unfinished()
        self._flush()
        if self._protocol.state is not OPEN:
            self._lose()
        return len(frames)

    def _count_unfinished(self) -> None:
        """Hold what is here of a message that is not whole: the beginning of a frame, and the frames before it, inflated."""
        byte_count = len(self._protocol.reader.buffer)
        if self._parts is not None:
            byte_count += len(self._parts)
        elif not byte_count:
            self._began_s = None
            self._held.release()
            return
        if self._began_s is None:
            self._began_s = self._heard_s
        if not self._held.hold(byte_count):
            metrics.bounds_reached_total.labels("buffered").inc()
            if self.is_open:
                self.fail(CloseCode.TRY_AGAIN_LATER, self._held.refusal().text)
            else:
                self.abort()  # a frame that comes after the close frame
            self._held.release()

    def _take_frame(self, frame: Frame) -> None:
        data = bytes(frame.data)
        frame.data = b""  # the protocol keeps its last frame, until the next or until its own circle of references is collected
        if frame.opcode is CONT:
            assert self._parts is not None  # the protocol refuses a continuation of nothing
            self._parts += data
            if not frame.fin:
                return
            data, self._parts = bytes(self._parts), None
        else:
            self._text = frame.opcode is TEXT
            if not frame.fin:
                self._parts = bytearray(data)
                return
        if self._text and not _is_utf8(data):
            self.fail(CloseCode.INVALID_DATA, "a text message must be UTF-8")
            return
        self._held.release()  # it is whole: whoever serves it counts it from now on
        try:
            self.user.take(data, self._text)
        except Exception:
            _logger.exception("a WebSocket handler failed")
            self.fail(CloseCode.INTERNAL_ERROR, "internal error")

    def _lose(self) -> None:
        """The connection takes no more messages: what was done for it ends now, its socket a little later."""
        if self._is_over:
            return
        self._is_over = True
        self._parts = None
        self._stop_waiting()
        if not self._stream.closed():
            asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self.abort)
        self.user.closed()


def _shortened(reason: str) -> str:
    """A close frame has room for 123 bytes of reason."""
    return reason.encode()[:123].decode(errors="ignore")


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
