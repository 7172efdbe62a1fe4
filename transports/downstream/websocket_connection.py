"""WebSocket connections of clients: the upgrade from HTTP, frames and close codes, pings, what may wait for a slow reader."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tornado.iostream import IOStream, StreamClosedError
from websockets.datastructures import Headers
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CONT, CTRL_OPCODES, TEXT, CloseCode, Frame
from websockets.http11 import Request as Handshake
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from mcp_gateway.config.settings import Settings

from ..protocol.refusals import Refused
from .edge_port import EdgePort
from .server import GatewayServer, Incoming, method_not_allowed, retrieve

TRANSPORT: Final = "websocket"
_READ_BYTES: Final = 65_536
_PIECE_BYTES: Final = 262_144
MOST_UNSENT_BYTES: Final = 262_144
"""A client that has so much to read is heard again once it has read: what it asks for must not pile up here."""
_CLOSE_TIMEOUT_S: Final = 5.0
"""How long a client may take to close its side after the close frame. Reading on meanwhile lets it see the code, not a reset."""
_SMALLEST_DEFLATED_BYTES: Final = 512
"""Setting a compressor up costs more than a small message could save."""

_logger = logging.getLogger(__name__)
_protocol_logger = logging.getLogger(f"{__name__}.protocol")
_protocol_logger.setLevel(logging.WARNING)  # it tells of every connection that opens and closes


class SocketUser(Protocol):
    """What speaks over a WebSocket."""

    def take(self, data: bytes, is_text: bool) -> None:
        """One message; of a text message the bytes are UTF-8."""

    def closed(self) -> None:
        """The connection takes no more messages. Called once, however it came to that."""

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        """Call back once nothing that the client asked for is open, now or later; for a drain."""


class WebSocket:
    """One connection after its upgrade: messages out of frames, frames out of messages. Frames and codes are `websockets`' work.

    Source: RFC 6455, sections 5 to 7.
    """

    __slots__ = (
        "_backlog",
        "_heard_s",
        "_is_over",
        "_on_end",
        "_parts",
        "_pinged_s",
        "_protocol",
        "_stream",
        "_text",
        "_unsent_bytes",
        "user",
    )

    def __init__(self, stream: IOStream, protocol: ServerProtocol, on_end: Callable[[WebSocket], None]) -> None:
        self._stream = stream
        self._protocol = protocol
        self._on_end = on_end
        self._parts: bytearray | None = None  # of a message in fragments
        self._text = False
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

    def _flush(self) -> asyncio.Future[None] | None:
        written: asyncio.Future[None] | None = None
        for data in self._protocol.data_to_send():
            if self._stream.closed():
                break
            if not data:
                self._stream.write(b"").add_done_callback(self._half_close)
            for start in range(0, len(data), _PIECE_BYTES):  # in pieces, so that a slow client is seen to read
                written = self._write(data if len(data) <= _PIECE_BYTES else data[start : start + _PIECE_BYTES])
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
                reading: asyncio.Future[bytes] = self._stream.read_bytes(_READ_BYTES, partial=True)  # type: ignore[assignment]
                if reading.done():
                    await asyncio.sleep(0)  # a client that sends without pause must not keep the loop to itself
                self._take(await reading)
                if self._unsent_bytes > MOST_UNSENT_BYTES and self.is_open:
                    await self._until_sent()
        except StreamClosedError:
            pass
        except Exception:
            _logger.exception("a WebSocket failed")
            self._stream.close()
        finally:
            self._lose()
            self._on_end(self)

    async def _until_sent(self) -> None:
        self._backlog = asyncio.get_running_loop().create_future()
        self._stream.set_close_callback(self._stop_waiting)
        await self._backlog
        self._stream.set_close_callback(None)
        self._backlog = None

    def _stop_waiting(self) -> None:
        if self._backlog is not None and not self._backlog.done():
            self._backlog.set_result(None)

    def _take(self, chunk: bytes) -> None:
        self._heard_s = time.monotonic()
        self._protocol.receive_data(chunk)
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode not in CTRL_OPCODES and not self._is_over:
                self._take_frame(frame)
        self._flush()
        if self._protocol.state is not OPEN:
            self._lose()

    def _take_frame(self, frame: Frame) -> None:
        data = bytes(frame.data)
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


class WebSockets:
    """The open WebSockets of a cell: upgrades requests to them, pings them, ends them in a drain."""

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort) -> None:
        self._settings = settings.transports.websocket
        self._max_message_bytes = settings.gateway.max_message_bytes
        self._server = server
        self._port = port
        self._open: set[WebSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._extensions = (_DeflateFactory(),) if self._settings.compression else ()
        self._timer: asyncio.TimerHandle | None = None
        server.on_drain(self._drain)

    def upgrade(self, incoming: Incoming, subprotocol: str, make_user: Callable[[WebSocket], SocketUser]) -> None:
        """Answer an upgrade request; `make_user` is called once the WebSocket is open.

        The subprotocol is selected where the client offers it. A client that offers none, or only others, is served without
        one; it may then close the connection. Source: RFC 6455, section 4.2.2, "/subprotocol/".

        Raises: Refused.
        """
        if TRANSPORT not in self._port.enabled_transports:
            raise Refused("draining", "this transport is not served now")
        if self._port.is_draining:
            raise Refused("draining", "the gateway is draining")
        if incoming.method != "GET":
            method_not_allowed(incoming, "GET")
            return
        protocol = self._protocol(subprotocol)
        headers = Headers()
        for name, value in incoming.headers.items():
            headers[name] = value
        answer = protocol.accept(Handshake(incoming.path, headers, protocol=incoming.version))
        if answer.status_code != 101:
            _refuse_upgrade(incoming, answer.status_code, str(protocol.handshake_exc))
            return
        self._server.take_connection(TRANSPORT)
        stream = incoming.detach()
        # The system holds only so much more for a client that does not read; its own default is megabytes.
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _READ_BYTES)
        stream.write(answer.serialize()).add_done_callback(retrieve)
        connection = WebSocket(stream, protocol, self._ended)
        connection.user = make_user(connection)
        self._open.add(connection)
        if self._timer is None:
            self._sweep()
        task = asyncio.get_running_loop().create_task(connection.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _protocol(self, subprotocol: str) -> ServerProtocol:
        wanted = Subprotocol(subprotocol)

        def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
            return wanted if wanted in offered else None

        return ServerProtocol(
            state=OPEN,  # the request has been read by the HTTP server
            extensions=self._extensions,
            select_subprotocol=select,
            max_size=self._max_message_bytes,
            logger=_protocol_logger,
        )

    def _ended(self, connection: WebSocket) -> None:
        self._open.discard(connection)
        self._server.release_connection(TRANSPORT)

    # ---- time

    def _sweep(self) -> None:
        """Ping them all from one timer: a task for each would cost more than the connection it watches."""
        settings = self._settings
        shortest_s = min(settings.ping_interval or settings.pong_timeout, settings.pong_timeout)
        self._timer = asyncio.get_running_loop().call_later(min(1.0, shortest_s / 4), self._sweep)
        if settings.ping_interval:
            now_s = time.monotonic()
            for connection in list(self._open):
                connection.keep_alive(now_s, settings.ping_interval, settings.pong_timeout)

    # ---- the end

    @property
    def count(self) -> int:
        return len(self._open)

    def _drain(self) -> None:
        """End each one as soon as it waits for no answer; its client comes back elsewhere."""
        for connection in list(self._open):
            end = functools.partial(connection.close, CloseCode.GOING_AWAY, "the gateway is draining")
            connection.user.when_idle(end)

    async def close(self) -> None:
        """End all of them now."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._open):
            connection.close(CloseCode.GOING_AWAY, "the gateway is ending")
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)


class _Deflate(PerMessageDeflate):
    """Per-message deflate that leaves small messages as they are, which RFC 7692, section 7.2.1, allows for any message."""

    def encode(self, frame: Frame) -> Frame:
        return frame if len(frame.data) < _SMALLEST_DEFLATED_BYTES else super().encode(frame)


class _DeflateFactory(ServerPerMessageDeflateFactory):
    """Accepts offers so that no compression state outlives its message: some 40 KB for each idle connection otherwise.

    Source: RFC 7692, section 7.1.1; a server may ask for both without the client's offer.
    """

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=12,
            compress_settings={"memLevel": 5},
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        agreed, accepted = super().process_request_params(params, accepted_extensions)
        deflate = _Deflate(
            remote_no_context_takeover=accepted.remote_no_context_takeover,
            local_no_context_takeover=accepted.local_no_context_takeover,
            remote_max_window_bits=accepted.remote_max_window_bits,
            local_max_window_bits=accepted.local_max_window_bits,
            compress_settings=accepted.compress_settings,
        )
        return agreed, deflate


def _refuse_upgrade(incoming: Incoming, status: int, text: str) -> None:
    """Source: RFC 6455, section 4.2.2 (version); RFC 9110, section 15.5.22 (426)."""
    more: dict[str, str] = {}
    if incoming.headers.get("Sec-Websocket-Version", "13") != "13":
        status, more = 426, {"Sec-WebSocket-Version": "13"}
    if status == 426:
        more = {"Upgrade": "websocket", "Connection": "Upgrade", **more}
    incoming.refuse(Refused("invalid_request", f"this path is served to WebSockets only: {text}", status=status), more)


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
