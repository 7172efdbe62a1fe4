"""The Tornado server of a cell: counts connections, hands requests to the endpoint of their path, keeps what must go on going."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

import attrs
import msgspec
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.netutil import bind_sockets

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.authenticator import Authenticator
from mcp_gateway.transports.ports.hash_keys import is_principal
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.shared_budget import SharedBudget
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.topics.client_events import is_for_operators
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern
from mcp_gateway.transports.telemetry import metrics

from .accept import names
from .accepting import BoundedHttpServer
from .buffered_bytes import BufferedBytes
from .client_connection import AnswerWriter
from .forwarded import TrustedProxies
from .gate import Access, Gate, NoteLogIn
from .incoming import Incoming
from .operator_cookies import OperatorCookies
from .origins import OriginRules, check_site, preflight_headers
from .protected_resource import challenge
from .request_limiter import Publish, RequestLimiter
from .tickets import Tickets
from .tls import ServerTls
from .unsent_bytes import UnsentBytes

_logger = logging.getLogger(__name__)

_GRPC: Final = "grpc"
_MAX_HEADER_BYTES: Final = 65_536
_SWEEP_S: Final = 1.0
_KEEP_ALIVE_EVENT_S: Final = 15.0


class Endpoint(Protocol):
    """Serves one path."""

    def handle(self, incoming: Incoming) -> None: ...


@attrs.frozen
class _Served:
    """What is at one path, and for whom; see `GatewayServer.add_endpoint`."""

    endpoint: Endpoint
    access: Access
    is_page: bool
    takes_ticket: bool
    login_path: str


class GatewayServer(HTTPServerConnectionDelegate):
    """Accepts connections and hands each request to the endpoint of its path.

    It is written on Tornado's connection delegates rather than on RequestHandler, whose per-request work cost more than
    everything the gateway does with a request.

    publish: tells the bus, see `RequestLimiter`.
    authenticator: who knows the clients, where the settings have `[auth]`; then there may be `tickets`; `note_log_in`
    and `cookies`: see `Gate`.
    buffered: what all connections of this cell hold together of messages that are on their way in or out.
    """

    def __init__(
        self,
        settings: Settings,
        publish: Publish,
        authenticator: Authenticator | None = None,
        tickets: Tickets | None = None,
        note_log_in: NoteLogIn | None = None,
        cookies: OperatorCookies | None = None,
    ) -> None:
        self._settings = settings
        hsts_s = 0.0 if settings.tls is None else settings.tls.hsts
        # Source: RFC 6797, sections 6.1 and 7.2: over TLS only.
        self.always: Mapping[str, str] = {"Strict-Transport-Security": f"max-age={hsts_s:.0f}"} if hsts_s else {}
        self.asks_for_certificates = settings.tls is not None and bool(settings.tls.client_ca)
        self.max_message_bytes = settings.gateway.max_message_bytes
        self.buffered = BufferedBytes(settings.gateway)
        self.unsent = UnsentBytes(self.buffered, settings.gateway.write_timeout)
        self._served: dict[str, _Served] = {}
        self._patterns: list[tuple[str, _Served]] = []
        self._connections: dict[str, SharedBudget] = {}  # of the transports that have had one
        gateway = settings.gateway
        self.origins = OriginRules(
            gateway.host,
            gateway.allowed_origins,
            allowed_hosts=gateway.allowed_hosts,
            public_url=gateway.public_url,
            localhost_origins=gateway.localhost_origins,
        )
        self.proxies = TrustedProxies(gateway.trusted_proxies)
        self.limiter = RequestLimiter(settings, publish)
        self.gate: Gate | None = None
        if settings.auth is not None:
            if authenticator is None:
                raise ValueError("[auth] is there, and nobody who knows the clients")
            self.gate = Gate(settings, authenticator, tickets, self.proxies.are_at, self._carry_out, note_log_in, cookies)
        self.sends_away = False  # who is connected is served once more, and then goes to another cell
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
            gateway=settings.gateway,
            proxies=self.proxies,
            tls=None if settings.tls is None else ServerTls(settings.tls),
        )

    # ---- life

    def add_endpoint(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        access: Access = Access.CLIENTS,
        is_page: bool = False,
        takes_ticket: bool = False,
        login_path: str = "",
    ) -> None:
        """Serve a path, or all paths of a kind: "…" in it stands for anything, and what was added first is matched first.

        access:       whom it serves, where the gateway knows its clients.
        is_page:      whether links of other sites may lead people here.
        takes_ticket: whether browsers come here that can send no header of their own.
        login_path:   where a person is led who is not let in.
        """
        served = _Served(endpoint, access, is_page, takes_ticket, login_path)
        if "…" in path:
            self._patterns.append((path, served))
        else:
            self._served[path] = served

    def listen(self) -> None:
        """Bind the port, shared with the other cells of the node.

        Raises: OSError.
        """
        gateway = self._settings.gateway
        self._server.add_sockets(bind_sockets(gateway.port, gateway.host, reuse_port=True, backlog=1024))
        self.serve()

    def serve(self) -> None:
        """Look after the requests that come, also where another server takes connections and hands them over."""
        self._sweep()

    def on_drain(self, end: Callable[[], None]) -> None:
        """Call `end` when the cell drains, to close connections that have no end of their own, as soon as they are idle."""
        self._drained.append(end)

    @property
    def connection_count(self) -> int:
        """Connections over HTTP that are open, whether a request is in flight or not."""
        return self._server.connection_count

    def drain(self, *, others_serve: bool = False) -> None:
        """Stop accepting connections, and end those that stay open by their nature."""
        self._server.stop()
        if others_serve:
            self.sends_away = True
            self.always = {**self.always, "Connection": "close"}
        for end in self._drained:
            end()

    async def close(self) -> None:
        """Stop, and close every connection that is still open."""
        self._server.stop()
        if self._timer is not None:
            self._timer.cancel()
        await self._server.close_all_connections()

    def _sweep(self) -> None:
        """What needs no timer of its own: slow heads and bodies, clients that do not read, comments for streams, gauges."""
        now_s = time.monotonic()
        self.unsent.sweep(now_s)
        for incoming in [each for each in self.reading if now_s > each.due_s]:
            incoming.give_up()
        self._server.end_overdue(now_s)
        self._server.refresh_tls()
        if now_s >= self._keep_alive_due_s:
            self._keep_alive_due_s = now_s + _KEEP_ALIVE_EVENT_S
            for stream in list(self.open_streams):
                stream.keep_alive()
        for transport, count in self.connection_counts().items():
            metrics.downstream_connections.labels(transport).set(count)
        metrics.waiting_connections.set(self._server.waiting_count)
        for direction, byte_count in self.buffered.held.items():
            metrics.buffered_bytes.labels(direction).set(byte_count)
        self._timer = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    # ---- connections

    def take_connection(self, transport: str, holder: str) -> None:
        """Count one request or stream of a transport and of a client, see `Incoming.holder`.

        Raises: Refused with too_many_connections, at the cell's part of the transport's limit or at the holder's share of that.
        """
        connections = self._connections.get(transport)
        if connections is None:
            connections = self._connections[transport] = self._limit(transport)
        if connections.take(holder):
            return
        metrics.bounds_reached_total.labels("connections").inc()
        if connections.held < connections.limit:
            whose = "user" if is_principal(holder) else "address"
            text = f"{transport} serves {connections.largest_share} connections of one {whose} at once here"
        else:
            text = f"{transport} serves {connections.limit} connections at once here"
        raise Refused("too_many_connections", text)

    def release_connection(self, transport: str, holder: str) -> None:
        self._connections[transport].give_back(holder)

    def connection_counts(self) -> dict[str, int]:
        """{transport: open requests and streams}."""
        return {transport: connections.held for transport, connections in self._connections.items()}

    def _limit(self, transport: str) -> SharedBudget:
        gateway = self._settings.gateway
        table = self._settings.grpc if transport == _GRPC else getattr(self._settings.transports, transport)
        limit: int = table.max_connections
        return SharedBudget(-(-limit // gateway.cell_count), gateway.max_share_per_address)

    # ---- who clients are

    def take_auth(self, auth: AuthSettings | None) -> None:
        """These settings hold from now on. Whether clients are known at all is decided when the gateway starts."""
        if self.gate is not None and auth is not None:
            self.gate.take(auth)

    def is_operator(self, principal: Principal | None) -> bool:
        """Whether it may see what operators do; where nobody is known, everybody may."""
        return self.gate is None or self.gate.is_operator(principal)

    def may_see_clients(self, incoming: Incoming) -> bool:
        """Whether an operators' page shows this reader what others do: to operators; where nobody is known, on this machine."""
        if self.gate is not None:
            return self.gate.is_operator(incoming.principal)
        return self.proxies.is_of_this_machine(incoming.peer, incoming.headers)

    def on_log_out(self, principal: Principal | None, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back once what the client has shown ends; the function returned calls it off. Nobody in particular never does."""
        if self.gate is None or principal is None:
            return _nothing
        return self.gate.on_log_out(principal, callback)

    def check_topic(self, principal: Principal | None, pattern: TopicPattern) -> None:
        """Raises: Refused where these topics are for operators: all but those of clients, and patterns that match more."""
        if self.gate is not None and is_for_operators(pattern):
            self.gate.check_operator(principal)

    # ---- requests

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        return Incoming(self, cast(AnswerWriter, request_conn))

    def dispatch(self, incoming: Incoming) -> None:
        self._carry_out(incoming, lambda: self._dispatch(incoming))

    def _dispatch(self, incoming: Incoming) -> None:
        served = self._served.get(incoming.path)
        if served is None:
            served = next((each for pattern, each in self._patterns if _matches(incoming.path, pattern)), None)
        check_site(incoming.headers, is_page=served is not None and served.is_page)
        if served is None:
            incoming.respond(404, msgspec.json.encode({"error": "no such endpoint", "endpoints": self._paths()}), {})
        elif incoming.method == "OPTIONS":
            self._preflight(incoming)
        else:
            self._admit(incoming, served.endpoint, served.access, takes_ticket=served.takes_ticket)

    def serve_client(self, incoming: Incoming, endpoint: Endpoint) -> None:
        """Have the endpoint answer a client whose request has come by another way than this server's own port."""
        self._carry_out(incoming, lambda: self._admit(incoming, endpoint, Access.CLIENTS))

    def _admit(self, incoming: Incoming, endpoint: Endpoint, access: Access, *, takes_ticket: bool = False) -> None:
        if self.gate is None or access is Access.EVERYBODY:
            endpoint.handle(incoming)
        else:
            self.gate.admit(incoming, access, takes_ticket, endpoint.handle)

    def _carry_out(self, incoming: Incoming, work: Callable[[], None]) -> None:
        """Do it, and answer the request where that fails."""
        try:
            work()
        except Refused as refused:
            self._refuse(incoming, refused)
        except Exception:
            _logger.exception("a handler failed on %s %s", incoming.method, incoming.path[:200])
            incoming.refuse(Refused("upstream_failed", "internal error", status=500))

    def _refuse(self, incoming: Incoming, refused: Refused) -> None:
        served = self._served.get(incoming.path)
        login_path = "" if served is None else served.login_path
        is_person = incoming.method == "GET" and names(incoming.headers.get("Accept", ""), "text/html")
        if login_path and is_person and refused.reason in ("unauthorized", "insufficient_scope"):
            incoming.respond(303, b"", {"Location": f"{self.base_url(incoming)}{login_path}", "Cache-Control": "no-store"})
        else:
            incoming.refuse(refused)

    def challenge(self, incoming: Incoming, refused: Refused) -> str | None:
        if self.gate is None:
            return None
        granted = incoming.principal.scopes if incoming.principal is not None else ()
        return challenge(refused, self.base_url(incoming), incoming.path, self.gate.auth, granted)

    def base_url(self, incoming: Incoming) -> str:
        """What its address begins with as clients write it: as configured, or else as this one has."""
        gateway, asked = self._settings.gateway, incoming.origin
        host = asked.host or incoming.headers.get("Host")
        if gateway.public_url or not host:
            return (gateway.public_url or self._settings.url).rstrip("/")
        return f"{asked.scheme or self._settings.scheme}://{host}{asked.prefix}"

    def _preflight(self, incoming: Incoming) -> None:
        if "Origin" in incoming.headers:
            headers = preflight_headers(incoming.headers.get("Access-Control-Request-Headers", ""))
        else:
            headers = {"Allow": "GET, POST, DELETE, OPTIONS"}
        incoming.respond(204, b"", headers)

    def _paths(self) -> list[str]:
        return [*self._served, *(pattern for pattern, _ in self._patterns)]


def _nothing() -> None:
    """There is nothing to call off."""


def _matches(path: str, pattern: str) -> bool:
    """Whether this is a path of the kind; a path ends without a slash, so one that names nothing in place of "…" is shorter."""
    before, _, after = pattern.partition("…")
    return f"{path}/".startswith(before) and (not after or (path.endswith(after) and len(path) > len(before) + len(after)))
