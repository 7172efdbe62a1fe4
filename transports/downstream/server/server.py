"""The Tornado server of a cell: limits and origin checks that hold for every endpoint, then the endpoint's own handler."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Callable, Mapping
from http.client import responses
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import msgspec
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .accepting import BoundedHttpServer
from .request_limiter import RequestLimiter

_logger = logging.getLogger(__name__)

_MAX_HEADER_BYTES: Final = 65_536
_IDLE_CONNECTION_S: Final = 300.0
_BODY_TIMEOUT_S: Final = 30.0
_SLOWEST_BYTES_PER_S: Final = 16_000
_SWEEP_S: Final = 1.0
_KEEP_ALIVE_EVENT_S: Final = 15.0
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CORS_HEADERS: Final = (
    "Content-Type, Accept, Authorization, Last-Event-ID, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name, "
    "traceparent, tracestate, baggage"
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class ServerPort(Protocol):
    """What the server itself needs of the edge; handlers need `edge_port.EdgePort`."""

    is_draining: bool
    enabled_transports: frozenset[str]

    def publish(self, topic: str, payload: Mapping[str, Any]) -> None: ...


class Incoming(HTTPMessageDelegate):
    """One HTTP request of a client, whole once `body` is there, and the way to answer it.

    headers: {name as in "Mcp-Session-Id": value}; a header that came twice has both values, joined by a comma.
    version: "HTTP/1.1" or "HTTP/1.0".

    Answers: `respond` once; or `begin`, any number of `write`, then `end`; or `detach`. They are harmless after the client has
    gone.
    """

    __slots__ = (
        "_chunks",
        "_client_gone",
        "_has_answered",
        "_refusal",
        "_server",
        "_size",
        "body",
        "connection",
        "headers",
        "method",
        "path",
        "query",
        "started_s",
        "version",
    )

    def __init__(self, server: GatewayServer, connection: HTTPConnection) -> None:
        self._server = server
        self.connection = connection
        self._chunks: list[bytes] = []
        self._size = 0
        self._has_answered = False
        self._client_gone: Callable[[], None] | None = None
        self._refusal: Refused | None = None
        self.body = b""

    # ---- reading, as Tornado calls it

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        assert isinstance(start_line, RequestStartLine)
        self.method = start_line.method
        self.headers = _plain(headers)
        target = start_line.path
        if target.startswith(("http://", "https://")):  # as to a proxy. Source: RFC 9112, section 3.2.2
            authority, slash, rest = target.partition("://")[2].partition("/")
            self.headers["Host"], target = authority, slash + rest or "/"
        self.path, _, self.query = target.partition("?")
        self.version = start_line.version
        self.started_s = time.monotonic()
        self._server.reading.add(self)
        length = self.headers.get("Content-Length", "0")
        declared = int(length) if length.isdigit() and len(length) < 20 else 0
        try:
            self._server.check(self)
            if declared > self._server.max_message_bytes:
                raise self._server.too_large()
        except Refused as refused:
            self._refuse_early(refused, declared)

    def data_received(self, chunk: bytes) -> None:
        if self._has_answered:
            return
        self._size += len(chunk)
        if self._refusal is not None:
            self._refuse_early(self._refusal, self._size)
        elif self._size > self._server.max_message_bytes:
            self._chunks.clear()
            self._refuse_early(self._server.too_large(), self._size)
        else:
            self._chunks.append(chunk)

    @property
    def due_s(self) -> float:
        """When its body must be here: later for one that is large and comes steadily."""
        return self.started_s + _BODY_TIMEOUT_S + self._size / _SLOWEST_BYTES_PER_S

    def _refuse_early(self, refused: Refused, body_bytes: int) -> None:
        """Refuse a request whose body has not been read: a little more is read and dropped, so that the connection stays usable
        and the client, which may still be sending, reads the answer rather than a reset. A body far too large ends both.
        """
        self._refusal = refused
        if body_bytes > 2 * self._server.max_message_bytes:
            self.refuse(refused, {"Connection": "close"})

    def finish(self) -> None:
        self._server.reading.discard(self)
        if self._has_answered:
            return
        if self._refusal is not None:
            self.refuse(self._refusal)
            return
        self.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._server.dispatch(self)
        stream = self.connection.stream  # type: ignore[attr-defined]
        if self._client_gone is not None and stream is not None and stream.closed():
            # Noticed by a write just now: Tornado tells only of what happens after this method.
            client_gone, self._client_gone = self._client_gone, None
            client_gone()

    def on_connection_close(self) -> None:
        """The client left before its request was whole: nothing has begun."""
        self._server.reading.discard(self)
        self._has_answered = True

    # ---- answering

    @property
    def remote_ip(self) -> str:
        return getattr(self.connection.context, "remote_ip", "") or ""  # type: ignore[attr-defined]

    def respond(self, status: int, body: bytes, headers: Mapping[str, str], content_type: str = "application/json") -> None:
        if self._has_answered:
            return
        self._has_answered = True
        self._client_gone = None
        self._server.reading.discard(self)
        lines = HTTPHeaders()
        if body:
            lines["Content-Type"] = content_type
        if status != 204:
            lines["Content-Length"] = str(len(body))
        for name, value in headers.items():
            lines[name] = value
        self._server.add_cors(self, lines)
        self.connection.write_headers(_status_line(status), lines, body if self.method != "HEAD" else b"")
        self.connection.finish()

    def refuse(self, refused: Refused, more_headers: Mapping[str, str] | None = None) -> None:
        headers = dict(more_headers or {})
        if refused.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(refused.retry_after_s)))
        self.respond(refused.status, refused.body(), headers)

    def begin(self, headers: Mapping[str, str]) -> None:
        """Start an event stream."""
        if self._has_answered:
            return
        self._has_answered = True
        lines = HTTPHeaders({"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        for name, value in headers.items():
            lines[name] = value
        self._server.add_cors(self, lines)
        self.connection.write_headers(_status_line(200), lines)

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Send bytes of a begun stream; the future is done when the socket has taken these and all before them."""
        written = self.connection.write(data)
        if self.connection.stream.closed():  # type: ignore[attr-defined]
            return written
        # Of writes that overlap, Tornado's connection ends only the last one's future, and too early: it keeps a single one.
        pending: asyncio.Future[None] = self.connection._pending_write  # type: ignore[attr-defined]
        return pending

    def limit_unsent(self, byte_count: int) -> None:
        """Have the kernel hold only about so many bytes that it cannot send on: a client that does not read is noticed soon."""
        sock = self.connection.stream.socket  # type: ignore[attr-defined]
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, byte_count)

    def end(self) -> None:
        self._client_gone = None
        self.connection.finish()

    def detach(self) -> IOStream:
        """Take the connection over for another protocol, whose answer this request is; nothing of HTTP follows."""
        self._has_answered = True
        stream: IOStream = self.connection.detach()  # type: ignore[attr-defined]
        return stream

    def on_client_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once if the client closes its connection before the answer is complete."""
        self._client_gone = callback
        self.connection.set_close_callback(callback)  # type: ignore[attr-defined]


class Endpoint(Protocol):
    """Serves one path."""

    def handle(self, incoming: Incoming) -> None: ...


class GatewayServer(HTTPServerConnectionDelegate):
    """Accepts connections, applies what holds everywhere, and hands each request to the endpoint of its path.

    It is written on Tornado's connection delegates rather than on RequestHandler, whose per-request work cost more than
    everything the gateway does with a request.
    """

    def __init__(self, settings: Settings, port: ServerPort) -> None:
        self._settings = settings
        self._port = port
        self.max_message_bytes = settings.gateway.max_message_bytes
        self._endpoints: dict[str, Endpoint] = {}
        self._prefixes: list[tuple[str, Endpoint]] = []
        self._connections: dict[str, int] = {}
        self._limits = {
            "streamable_http": settings.transports.streamable_http.max_connections,
            "http_sse": settings.transports.http_sse.max_connections,
            "websocket": settings.transports.websocket.max_connections,
        }
        self._is_loopback = _is_loopback(settings.gateway.host)
        self._origins = frozenset(settings.gateway.allowed_origins)
        hosts = {urlsplit(origin).hostname or "" for origin in self._origins}
        self._hosts = _LOOPBACK_NAMES | {settings.gateway.host} | hosts
        self.limiter = RequestLimiter(settings, port.publish)
        self.open_streams: set[Any] = set()
        self.reading: set[Incoming] = set()
        self._drained: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive_due_s = 0.0
        self._server = BoundedHttpServer(
            self,
            max_header_size=_MAX_HEADER_BYTES,
            # Larger bodies are answered with too_large as they arrive; Tornado's own limit would close without a word.
            max_body_size=1 << 40,
            idle_connection_timeout=_IDLE_CONNECTION_S,
        )

    # ---- life

    def add_endpoint(self, path: str, endpoint: Endpoint) -> None:
        """Serve a path, or everything below it where the path ends with a slash."""
        if path.endswith("/"):
            self._prefixes.append((path, endpoint))
        else:
            self._endpoints[path] = endpoint

    def listen(self) -> None:
        """Bind the port, shared with the other cells of the node.

        Raises: OSError.
        """
        gateway = self._settings.gateway
        self._server.add_sockets(bind_sockets(gateway.port, gateway.host, reuse_port=True, backlog=1024))
        self._sweep()

    def on_drain(self, end: Callable[[], None]) -> None:
        """Call `end` when the cell drains, to close connections that have no end of their own, as soon as they are idle."""
        self._drained.append(end)

    def drain(self) -> None:
        """Stop accepting connections, and end those that stay open by their nature."""
        self._server.stop()
        for end in self._drained:
            end()

    async def close(self) -> None:
        """Stop, and close every connection that is still open."""
        self._server.stop()
        if self._timer is not None:
            self._timer.cancel()
        await self._server.close_all_connections()

    def _sweep(self) -> None:
        """What needs no timer of its own: slow bodies, comments that keep streams alive, gauges."""
        now_s = time.monotonic()
        for incoming in [each for each in self.reading if now_s > each.due_s]:
            self.reading.discard(incoming)
            incoming.connection.close()  # type: ignore[attr-defined]
        if now_s >= self._keep_alive_due_s:
            self._keep_alive_due_s = now_s + _KEEP_ALIVE_EVENT_S
            for stream in list(self.open_streams):
                stream.keep_alive()
        for transport, count in self._connections.items():
            metrics.downstream_connections.labels(transport).set(count)
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    # ---- connections

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return Incoming(self, request_conn)

    def take_connection(self, transport: str) -> None:
        """Count one request or stream of a transport.

        Raises: Refused with too_many_connections at the transport's share of the limit.
        """
        count = self._connections.get(transport, 0)
        share = -(-self._limits[transport] // self._settings.gateway.cell_count)
        if count >= share:
            raise Refused("too_many_connections", f"{transport} serves {share} connections at once here")
        self._connections[transport] = count + 1

    def release_connection(self, transport: str) -> None:
        self._connections[transport] -= 1

    def connection_counts(self) -> dict[str, int]:
        """{transport: open requests and streams}."""
        return dict(self._connections)

    # ---- what holds for every request

    def check(self, incoming: Incoming) -> None:
        """Origin and Host: a page of another site must not reach a gateway on this machine.

        Raises: Refused.
        Source: MCP 2026-07-28, basic/transports/streamable-http "Security & Endpoint"; the Host check is ours, for DNS rebinding.
        """
        origin = incoming.headers.get("Origin")
        host = incoming.headers.get("Host", "")
        if origin is not None and not self._is_allowed_origin(origin, host):
            raise Refused("origin_forbidden", f"origin {origin[:200]!r} may not connect")
        if self._is_loopback and host and _host_name(host) not in self._hosts:
            raise Refused("origin_forbidden", f"host {host[:200]!r} is not this gateway")

    def _is_allowed_origin(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and (name in _LOOPBACK_NAMES or (bool(host) and parts.netloc == host))

    def add_cors(self, incoming: Incoming, headers: HTTPHeaders) -> None:
        """Let pages of allowed origins read the answer. Source: WHATWG Fetch, "CORS protocol"."""
        origin = incoming.headers.get("Origin")
        if origin is None or not self._is_allowed_origin(origin, incoming.headers.get("Host", "")):
            return
        headers["Access-Control-Allow-Origin"] = origin
        headers["Vary"] = "Origin"
        headers["Access-Control-Expose-Headers"] = "Mcp-Session-Id, Retry-After"

    def too_large(self) -> Refused:
        return Refused("too_large", f"the message is larger than {self.max_message_bytes} bytes")

    def dispatch(self, incoming: Incoming) -> None:
        endpoint = self._endpoints.get(incoming.path)
        if endpoint is None:
            endpoint = next((each for prefix, each in self._prefixes if incoming.path.startswith(prefix)), None)
        try:
            if endpoint is None:
                incoming.respond(404, msgspec.json.encode({"error": "no such endpoint", "endpoints": self._paths()}), {})
            elif incoming.method == "OPTIONS":
                self._preflight(incoming)
            else:
                endpoint.handle(incoming)
        except Refused as refused:
            incoming.refuse(refused)
        except Exception:
            _logger.exception("a handler failed on %s %s", incoming.method, incoming.path[:200])
            incoming.refuse(Refused("upstream_failed", "internal error", status=500))

    def _preflight(self, incoming: Incoming) -> None:
        asked = (name.strip() for name in incoming.headers.get("Access-Control-Request-Headers", "").split(","))
        # Some are named after parameters of tools, or by routes and limits, so nobody can list them. Only pages of allowed
        # origins come here. Source: MCP 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters".
        more = [name for name in asked if _HEADER_NAME.fullmatch(name)]
        headers = {
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": ", ".join([_CORS_HEADERS, *more]),
            "Access-Control-Max-Age": "600",
        }
        incoming.respond(204, b"", headers if "Origin" in incoming.headers else {"Allow": "GET, POST, DELETE, OPTIONS"})

    def _paths(self) -> list[str]:
        return [*self._endpoints, *(f"{prefix}…" for prefix, _ in self._prefixes)]


def method_not_allowed(incoming: Incoming, allowed: str) -> None:
    refused = Refused("invalid_request", f"{incoming.method} is not served here", status=405)
    incoming.respond(405, refused.body(), {"Allow": allowed})


def retrieve(written: asyncio.Future[None]) -> None:
    """Take note of a failed write, so that asyncio does not report it: the close callback tells of the client's end."""
    if not written.cancelled():
        written.exception()


def _plain(headers: HTTPHeaders) -> dict[str, str]:
    """A dict, because a request is asked for a dozen headers and each look-up in HTTPHeaders normalizes the name again."""
    plain: dict[str, str] = {}
    for name, value in headers.get_all():
        plain[name] = f"{plain[name]},{value}" if name in plain else value
    return plain


def _status_line(status: int) -> ResponseStartLine:
    return ResponseStartLine("HTTP/1.1", status, responses.get(status, "Unknown"))


def _host_name(host: str) -> str:
    """The name in a Host header, without the port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
