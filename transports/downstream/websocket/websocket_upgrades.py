"""The WebSockets of a cell: how a request becomes one, how they are kept alive, how they end in a drain."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final

from websockets.datastructures import Headers
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.base import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request as Handshake
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import ExtensionParameter, Subprotocol

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.server.buffered_bytes import IN
from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, retrieve
from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .websocket_connection import SocketUser, WebSocket

TRANSPORT: Final = "websocket"
_SMALLEST_DEFLATED_BYTES: Final = 512
"""Setting a compressor up costs more than a small message could save."""

_protocol_logger = logging.getLogger(f"{__name__}.protocol")
_protocol_logger.setLevel(logging.WARNING)  # it tells of every connection that opens and closes


class WebSockets:
    """The open WebSockets of a cell: upgrades requests to them, pings them, ends them in a drain."""

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort) -> None:
        self._settings = settings.transports.websocket
        self._max_message_bytes = settings.gateway.max_message_bytes
        self._server = server
        self._port = port
        self._open: dict[WebSocket, tuple[str, Callable[[], None]]] = {}  # {connection: whose share it takes, `on_log_out`'s}
        self._tasks = HeldTasks()
        self._extensions = (_DeflateFactory(),) if self._settings.compression else ()
        self._timer: asyncio.TimerHandle | None = None
        self._swept_s = float("inf")
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
        self._server.take_connection(TRANSPORT, incoming.holder)
        stream = incoming.detach()
        stream.write(answer.serialize()).add_done_callback(retrieve)
        held = self._server.buffered.of(incoming.remote_ip, IN)
        on_written = functools.partial(self._server.unsent.written, stream, incoming.remote_ip)
        connection = WebSocket(stream, protocol, held, self._ended, on_written)
        connection.user = make_user(connection)
        call_off = self._server.on_log_out(incoming.principal, functools.partial(self._log_out, connection))
        self._open[connection] = incoming.holder, call_off
        if self._timer is None:
            self._sweep()
        self._tasks.start(connection.run())

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
        holder, call_off = self._open.pop(connection)
        call_off()
        self._server.release_connection(TRANSPORT, holder)

    def _log_out(self, connection: WebSocket) -> None:
        """What its client has shown has ended: a call that runs still gets its answer."""
        end = functools.partial(connection.close, CloseCode.POLICY_VIOLATION, "log in again: the token expired or was revoked")
        connection.user.log_out(end)

    # ---- time

    def _sweep(self) -> None:
        """Watch them all from one timer: a task for each would cost more than the connection that it watches."""
        settings = self._settings
        shortest_s = min(settings.ping_interval or settings.pong_timeout, settings.pong_timeout)
        delay_s = min(1.0, shortest_s / 4)
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._sweep)
        last_s, self._swept_s = self._swept_s, time.monotonic()
        # After a pause of this process itself the pongs are here and have not been read: nobody is judged in this turn.
        if self._swept_s - last_s < 3 * delay_s:
            now_s = self._swept_s
            for connection in list(self._open):
                connection.give_up_slow(now_s)
                if settings.ping_interval:
                    connection.keep_alive(now_s, settings.ping_interval, settings.pong_timeout)

    # ---- the end

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
        await self._tasks.wait()


class _Deflate(PerMessageDeflate):
    """Per-message deflate that leaves small messages as they are, which RFC 7692, section 7.2.1, allows for any message; and
    keeps nothing of one that it has refused, which may have been large."""

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        try:
            return super().decode(frame, max_size=max_size)
        except (ProtocolError, PayloadTooBig):
            self.decoder = zlib.decompressobj()
            raise

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
