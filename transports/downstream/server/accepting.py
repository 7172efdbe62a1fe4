"""Takes connections of clients for as long as the process has file descriptors to spare, and gives up those that bring nothing.

A process without a descriptor cannot do anything any more: accepting spins, and its actors can neither send nor wait. Idle
connections count in no transport's limit, and some machines allow few descriptors.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import resource
import socket
import time
from http.client import responses
from typing import Any, Final
from weakref import WeakSet

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, UnsatisfiableReadError

from mcp_gateway.config.settings import TORNADO, GatewaySettings
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.log_budget import LogBudget

from .client_connection import ClientConnection, Peer
from .forwarded import TrustedProxies, network_of
from .http1_connection import Http1Connection
from .request_head import HEADERS_TOO_LARGE, malformed
from .tls import ServerTls, client_certificate
from .tornado_connection import TornadoConnection
from .waiting_connections import WaitingConnections

_logger = logging.getLogger(__name__)

_IDLE_CONNECTION_S: Final = 300.0
"""Until a client that has had an answer begins its next request."""
_MOST_WAITING: Final = 2_048
"""Connections without a request in flight. Each may hold a head of 64 KiB that is not whole. Half of the descriptors at most."""
_ON_ITS_WAY_S: Final = 1.0
"""A connection that is not older may have its request on its way. It does not make room where descriptors are short."""
_LINGER_S: Final = 2.0
_MOST_LINGERING: Final = 64
"""Connections that are closed in this way, at once: more are closed at once."""
_KEPT: Final = 256
"""Descriptors that clients do not get: for servers, actors and files. Where few are allowed, half of them."""
_UNSENT_BYTES: Final = 65_536
"""What the system holds for a client that does not read, besides what is in flight: its own default is megabytes."""


class BoundedHttpServer(HTTPServer):
    """An HTTP server that holds no more connections than its process has descriptors for, and none too long for nothing.

    gateway: whose `http_parser`, `header_timeout` and `max_share_per_address` hold.
    proxies: those that bring connections of many clients.
    tls:     what connections are to be encrypted with; None for plain HTTP.
    """

    def initialize(  # type: ignore[override]
        self, *arguments: Any, gateway: GatewaySettings, proxies: TrustedProxies, tls: ServerTls | None, **keywords: Any
    ) -> None:
        keywords["ssl_options"] = None if tls is None else tls.context
        super().initialize(*arguments, **keywords)
        self._tls = tls
        self._encrypted: WeakSet[IOStream] = WeakSet()  # those that speak another protocol by now, too
        self.conn_params.header_timeout = None  # a timer for each request would cost more than the request's head
        self._is_tornado = gateway.http_parser == TORNADO
        self._proxies = proxies
        self._most = most_for_clients()
        self._waiting = WaitingConnections[ClientConnection](
            _MOST_WAITING if self._most is None else min(_MOST_WAITING, max(1, self._most // 2)),
            gateway.max_share_per_address,
            header_timeout_s=gateway.header_timeout,
            idle_timeout_s=_IDLE_CONNECTION_S,
        )
        self._overdue = Refused("invalid_request", f"the headers did not arrive within {gateway.header_timeout:g} s", status=408)
        self._is_crowded = False
        self._budget = LogBudget(lines=1)
        self._lingering = HeldTasks()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def stop(self) -> None:
        """Accept nothing more; who has been connected by the system already is served: closing its queue would reset them."""
        for listening in self._sockets.values():
            with contextlib.suppress(OSError):  # there is nobody left
                while True:
                    self._handle_connection(*listening.accept())
        super().stop()

    @property
    def waiting_count(self) -> int:
        """Connections on which no request is in flight."""
        return len(self._waiting)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        # The kernel gives the lowest number that is free.
        if self._most is not None and stream.socket.fileno() >= self._most:
            given_up = self._waiting.give_up_longest(time.monotonic() - _ON_ITS_WAY_S)
            if given_up is None:
                self._refuse(stream)
                return
            given_up.end_waiting(_CROWDED, "descriptors")
        stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        stream.close = functools.partial(self._close, stream)  # type: ignore[method-assign]
        if self._tls is not None:
            self._encrypted.add(stream)
        peer = str(address[0])
        # Each connection of a proxy may be another client's: it counts for itself.
        holder = f"{peer} {address[1]}" if self._proxies.are_at(peer) else network_of(peer)
        who = Peer(peer, holder, functools.cache(functools.partial(client_certificate, stream)))
        connection: TornadoConnection | Http1Connection
        if self._is_tornado:
            connection = TornadoConnection(stream, self.conn_params, who, self._waiting, self._make_room_soon)
        else:
            connection = Http1Connection(stream, self.conn_params.max_header_size, who, self._waiting, self._make_room_soon)
        self._connections.add(connection)  # type: ignore[arg-type]
        connection.start_serving(self)

    def _make_room_soon(self) -> None:
        """Two turns later: in the next one what clients have sent is read, and who has a request then is no crowd."""
        if not self._is_crowded:
            self._is_crowded = True
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._make_room)

    def _make_room(self) -> None:
        self._is_crowded = False
        for connection in self._waiting.make_room():
            connection.end_waiting(_CROWDED, "waiting")

    def refresh_tls(self) -> None:
        """Have connections from now on use the certificates that the files hold now, and end those of clients taken back."""
        if self._tls is not None and self._tls.refresh():
            self.ssl_options = self._tls.context
            for stream in [each for each in self._encrypted if self._tls.is_revoked(each)]:
                stream.close()

    def end_overdue(self, now_s: float) -> None:
        """Close connections that have waited for a request for too long."""
        for connection in self._waiting.overdue(now_s):
            connection.end_waiting(self._overdue, "idle" if connection.has_served and not connection.has_begun else "headers")

    def _close(self, stream: IOStream, exc_info: Any = False) -> None:
        """Close it, with a word to a client that is refused; also where what Tornado reads is too large: it would say none."""
        del stream.close  # of this object: the method of its class is there again
        refused = exc_info
        if isinstance(exc_info, UnsatisfiableReadError):
            refused = _SIZE_TOO_LONG if stream._read_regex is None else HEADERS_TOO_LARGE
        if isinstance(refused, Refused) and stream.socket is not None and not stream.writing():
            with contextlib.suppress(OSError):  # no descriptor left, or the client has gone: it goes without
                self._say(stream.socket, last_answer(refused))
        stream.close(exc_info)

    def _say(self, connection: socket.socket, answer: bytes) -> None:
        connection.send(answer)
        if len(self._lingering) < _MOST_LINGERING:
            kept = socket.socket(fileno=os.dup(connection.fileno()))  # below TLS, where that is: what comes is dropped anyway
            if self._most is None or kept.fileno() < self._most:
                self._lingering.start(_linger(kept))
            else:
                kept.close()

    def _refuse(self, stream: IOStream) -> None:
        metrics.bounds_reached_total.labels("descriptors").inc()
        if self._budget.take(time.monotonic()) is not None:
            _logger.warning("connections of clients are refused: %d file descriptors are in use", self._most)
        with contextlib.suppress(OSError):  # a client that has gone already
            stream.socket.send(_REFUSAL)
        stream.close()


async def _linger(connection: socket.socket) -> None:
    """Read what still comes, for a while: a close before that would take the answer away from the client.

    Source: RFC 9112, section 9.6.
    """
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(OSError, TimeoutError):
        connection.setblocking(False)
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_LINGER_S):
            while await loop.sock_recv(connection, 65_536):
                pass


def last_answer(refused: Refused) -> bytes:
    """The whole of the last answer on a connection that closes."""
    body = refused.body()
    retry = "" if refused.retry_after_s is None else "Retry-After: 1\r\n"
    head = (
        f"HTTP/1.1 {refused.status} {responses[refused.status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body


def most_for_clients() -> int | None:
    """The first file descriptor that no client may have; None where there is no limit."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else max(allowed - _KEPT, allowed // 2)


_CROWDED: Final = Refused("too_many_connections", "too many connections wait for a request, and this one has waited longest")
_SIZE_TOO_LONG: Final = malformed("the body is not chunked as it should be: the size of a chunk is short")
_REFUSAL: Final = last_answer(Refused("too_many_connections", "this process can take no more connections"))
