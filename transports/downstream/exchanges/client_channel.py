"""One client on a connection that carries messages both ways: HTTP+SSE, WebSocket, a Phoenix channel.

The connection is the session: `initialize` opens it, the end of the connection ends it. Requests of the stateless revisions,
which bring all they need, are served beside it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol

import attrs
import msgspec

from mcp_gateway.transports.downstream.server.buffered_bytes import IN, BufferedBytes, HeldBytes
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.request_limiter import RequestLimiter
from mcp_gateway.transports.ports.edge_port import EdgePort, Exchange
from mcp_gateway.transports.ports.hash_keys import HashKeys, chosen_tools, query_value
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.handshake import initialize_revision
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.modern_rules import check_modern_body, is_modern_post
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST, is_modern
from mcp_gateway.transports.protocol.mcp.trace_context import context_in_headers
from mcp_gateway.transports.protocol.merging.naming import route_target
from mcp_gateway.transports.protocol.sealed.session import SessionState
from mcp_gateway.transports.telemetry import metrics

from .request_metrics import count_request

MOST_OPEN_REQUESTS: Final = 256
"""Requests of one client that may run at once on one connection."""

MOST_UNREAD_BYTES: Final = 1_048_576
"""Answers that may wait for a client which does not read them; beyond, it is not listened to until it has."""

_MESSAGE_BYTES: Final = 2_048
"""What the smallest message takes while it is served; a client may send any number of notifications. Ours."""

_FOREVER: Final = float("inf")
_FAREWELL_S: Final = 5.0


class Outlet(Protocol):
    """Writes to the client; implemented by the handler of the connection."""

    def send(self, data: bytes, about: bytes | None) -> asyncio.Future[None] | None:
        """Send one JSON-RPC message; the future is done when the socket has taken it, None where it has already.

        about: the id of the client's request that the message belongs to, its answer included; None outside of any.
        """


@attrs.frozen(kw_only=True)
class ConnectedClient:
    """Who is at the other end of a connection, and what for: what does not change while it lasts.

    transport: name of the transport, as the registry and the metrics know it.
    endpoint:  a backend's name, or "" for the merged server.
    tools:     which tools it wants to see, see `Exchange`.
    keys:      what the client is hashed and limited by; see `HashKeys.of_connection`.
    headers:   what travels on to servers (lower-case names).
    principal: who the client has proved to be; None where nobody knows.
    """

    transport: str
    endpoint: str = ""
    tools: str = ""
    keys: Mapping[str, str]
    headers: Mapping[str, str] = attrs.field(factory=dict)
    principal: Principal | None = attrs.field(default=None, repr=False)


def connected_client(incoming: Incoming, transport: str, hash_keys: HashKeys, backend: str = "") -> ConnectedClient:
    """The client that this request opens a connection for; where its path names no `backend`, its query may."""
    return ConnectedClient(
        transport=transport,
        endpoint=backend or query_value(incoming.query, "backend") or "",
        tools=chosen_tools(incoming.headers, incoming.query),
        keys=hash_keys.of_connection(incoming.headers, incoming.query, incoming.remote_ip, incoming.principal),
        headers=context_in_headers(incoming.headers),
        principal=incoming.principal,
    )


class ClientChannel:
    """Turns a client's messages into exchanges, and what the exchanges bring into messages for the client.

    buffered:  where the bytes of a message count until its exchange is over.
    principal: as the client has shown last.
    """

    def __init__(
        self, port: EdgePort, limiter: RequestLimiter, buffered: BufferedBytes, outlet: Outlet, client: ConnectedClient
    ) -> None:
        self._port = port
        self._limiter = limiter
        self._buffered = buffered
        self._outlet = outlet
        self._client = client
        self.principal = client.principal
        self._is_logged_out = False
        self._open: dict[bytes, _ChannelAnswer] = {}  # {the client's request id as JSON: its answer to come}
        self._stream: _ChannelAnswer | None = None
        self._unread_bytes = 0
        self._on_idle: Callable[[], None] | None = None
        self._is_initializing = False
        self._telling = 0  # what the client said without a question and its servers have not taken yet
        self.session: SessionState | None = None
        self.is_closed = False

    # ---- the client speaks

    def receive(self, body: bytes) -> None:
        """Serve one message.

        Raises: Refused, with the request's id where the message shows one. It is not sent: over HTTP it has a status as well.
        """
        self.receive_message(jsonrpc.decode_from_client(body))

    def receive_message(self, message: Message) -> None:
        """The same for a message that has been read already."""
        if isinstance(message, Request):
            self._receive_request(message)
        elif isinstance(message, Notification) and message.method == "notifications/cancelled":
            self._cancel(message)
        elif self.session is None:
            if not isinstance(message, Notification):
                raise Refused("invalid_request", "the response answers no request of this connection")
            # A stateless client has nothing to notify of; a legacy one must have opened its session first.
        else:
            self._tell(message)
            is_ready = isinstance(message, Notification) and message.method == "notifications/initialized"
            if is_ready and self._stream is None:
                self._listen()

    @property
    def is_congested(self) -> bool:
        """Whether a client that does not read has let too many answers pile up: it should not be listened to until it has."""
        return self._unread_bytes > MOST_UNREAD_BYTES and not self.is_closed

    def is_running(self, request_id: bytes) -> bool:
        """Whether the answer of a request is still to come. request_id: as JSON, as the client wrote it."""
        return request_id in self._open

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        """Call back once no request of the client runs, now or later; for a drain."""
        if self._open:
            self._on_idle = on_idle
        else:
            on_idle()

    def is_of(self, principal: Principal | None) -> bool:
        """Whether the client is this principal, and what it shows now is for the server that is spoken to here."""
        own = self._client.principal
        if principal is not None and not principal.is_for(self._client.endpoint):
            return False
        return own is principal or (own is not None and principal is not None and own.key == principal.key)

    @property
    def may_step_up(self) -> bool:
        """Whether the client can ask for a token with more scopes: an authorization server vouches for it."""
        return self.principal is not None and self.principal.issuer.startswith(("https:", "http:"))

    def log_out(self, on_idle: Callable[[], None]) -> None:
        """What the client has shown has ended: its streams end now, what else runs ends well, and nothing more is begun.

        on_idle: see `when_idle`.
        """
        self._is_logged_out = True
        for answer in [each for each in (*self._open.values(), self._stream) if each is not None and each.is_stream]:
            self._port.close(answer.exchange_id)
            answer.refuse(logged_out(), "")
        self.when_idle(on_idle)

    def close(self) -> None:
        """The connection has ended: cancel what runs for it, and end its session."""
        if self.is_closed:
            return
        self.is_closed = True
        answers = list(self._open.values())
        for answer in answers:
            answer.abandon("client_gone")
        if self._stream is not None:
            self._stream.abandon("client_gone")
        if self.session is None:
            return
        for answer in answers:
            if answer.request_id is not None and not answer.is_modern:
                self._tell_of_the_end(answer.request_id)
        if not self._telling:
            self._end_session()

    # ---- parts

    def _receive_request(self, request: Request) -> None:
        if self._client.transport not in self._port.enabled_transports:
            raise Refused("draining", "this transport is not served now", request_id=request.id)
        if self._port.is_draining:
            raise Refused("draining", "the gateway is draining", request_id=request.id)
        if self._is_logged_out:
            raise logged_out(request.id)
        if self._limiter.is_on:
            keys = self._port.terms.hash_keys.of_message(self._client.keys, self.session, "", None)
            self._limiter.admit(keys, request.id, is_ping=request.method == "ping")
        if request.id in self._open:
            raise Refused("invalid_request", "a request with this id is still running", request_id=request.id)
        if len(self._open) >= MOST_OPEN_REQUESTS:
            text = f"{MOST_OPEN_REQUESTS} requests run on this connection at once"
            raise Refused("too_many_connections", text, request_id=request.id)
        if is_modern_post(None, request.params):
            check_modern_body(request)
            target = route_target(request.method, request.params, request.id)
            deadline_s = _FOREVER if request.method == "subscriptions/listen" else None
            self._ask(request, self._exchange(request, NEWEST, target, deadline_s=deadline_s))
        elif request.method == "initialize":
            self._initialize(request)
        elif request.method == "ping":
            count_request(self._client.transport, "ping", "", "ok", 0.0, 0.0)
            self.send(jsonrpc.encode_result(request.id, {}), request.id, None)
        elif self.session is None:
            text = "open a session with initialize first, or send the _meta of a stateless revision"
            raise Refused("invalid_request", text, request_id=request.id)
        else:
            target = route_target(request.method, request.params, request.id)
            self._ask(request, self._exchange(request, self.session.revision, target, session=self.session))

    def _initialize(self, request: Request) -> None:
        if self.session is not None or self._is_initializing:
            raise Refused("invalid_request", "this connection has its session already", request_id=request.id)
        revision = initialize_revision(request)
        self._is_initializing = True
        self._ask(request, self._exchange(request, revision, "initialize", new_session=secrets.token_urlsafe(9)))

    def initialized(self, session_id: str | None) -> None:
        """An `initialize` has been answered; session_id is None where it failed."""
        self._is_initializing = False
        self.session = None if session_id is None else self._port.read_session(session_id, self.principal)

    def _cancel(self, notification: Notification) -> None:
        """Source: MCP 2026-07-28, basic/patterns/cancellation; ids that are unknown, or malformed, are ignored."""
        try:
            request_id = bytes(jsonrpc.members(notification.params)["requestId"])
        except (KeyError, msgspec.DecodeError):
            return
        answer = self._open.get(request_id)
        if answer is None or answer.method == "initialize":  # which must not be cancelled
            return
        if not answer.is_modern and self.session is not None:
            self._tell(notification)
        answer.abandon("client_gone")

    def _listen(self) -> None:
        """Open the session's own stream: what its servers say outside of any request reaches the client as well."""
        session = self.session
        assert session is not None
        exchange = self._exchange(None, session.revision, "", session=session, kind=RequestKind.STREAM, deadline_s=_FOREVER)
        self._stream = _ChannelAnswer(self, exchange)
        self._port.open(exchange, self._stream)

    def _ask(self, request: Request, exchange: Exchange) -> None:
        answer = self._open[request.id] = _ChannelAnswer(self, exchange, self._hold(request, request.id))
        self._port.open(exchange, answer)
        if answer.step_up is not None:
            raise answer.step_up

    def _tell(self, message: Notification | Response) -> None:
        """Pass on what the client said without a question."""
        self._pass_on(message, self._hold(message, None))

    def _tell_of_the_end(self, request_id: bytes) -> None:
        """Tell the session's servers that nobody waits for a request any more."""
        params = msgspec.json.encode({"requestId": msgspec.Raw(request_id), "reason": "the client has gone"})
        self._pass_on(Notification("notifications/cancelled", params), None)

    def _pass_on(self, message: Notification | Response, held: HeldBytes | None) -> None:
        assert self.session is not None
        target = message.method if isinstance(message, Notification) else "response"
        exchange = self._exchange(message, self.session.revision, target, session=self.session)
        self._telling += 1
        self._port.open(exchange, _ChannelAnswer(self, exchange, held))

    def _hold(self, message: Message, request_id: bytes | None) -> HeldBytes:
        """Count a message until its exchange is over. Raises: Refused, where there are too many bytes."""
        held = self._buffered.of(self._client.keys["ip"], IN)
        if not held.hold(max(_MESSAGE_BYTES, jsonrpc.size_bytes(message))):
            metrics.bounds_reached_total.labels("buffered").inc()
            refused = held.refusal()
            refused.request_id = request_id
            raise refused
        return held

    def _end_session(self) -> None:
        """After what was said before: a server that is told of something in a session that has ended may fail at it."""
        assert self.session is not None
        deadline_s = time.monotonic() + _FAREWELL_S
        kind = RequestKind.TERMINATE
        exchange = self._exchange(None, self.session.revision, "", session=self.session, kind=kind, deadline_s=deadline_s)
        self._port.open(exchange, _ChannelAnswer(self, exchange))

    def _exchange(
        self,
        message: Message | None,
        revision: str,
        target: str,
        *,
        session: SessionState | None = None,
        new_session: str = "",
        kind: RequestKind | None = None,
        deadline_s: float | None = None,
    ) -> Exchange:
        """deadline_s: None for what any request may take."""
        client = self._client
        return Exchange(
            exchange_id=self._port.next_exchange_id(),
            transport=client.transport,
            revision=revision,
            endpoint=client.endpoint,
            tools=client.tools,
            kind=kind or RequestKind.of(message),
            message=message,
            target=target,
            session=session,
            hash_keys=self._port.terms.hash_keys.of_message(client.keys, session, new_session, message),
            headers=client.headers,
            principal=self.principal,
            deadline_s=time.monotonic() + self._port.terms.timeout_s if deadline_s is None else deadline_s,
        )

    # ---- what answers do

    def skip(self, exchange_id: int) -> None:
        """An event that says nothing on such a connection (an id alone) counts as taken."""
        self._port.flushed(exchange_id, 1)

    def count(self, answer: _ChannelAnswer, backend: str, outcome: str, upstream_s: float) -> None:
        """Before the client has the answer: one that it has is counted, whoever looks."""
        count_request(self._client.transport, answer.method, backend, outcome, time.monotonic() - answer.started_s, upstream_s)

    def over(self, answer: _ChannelAnswer) -> None:
        """An answer is complete, or will never come."""
        if answer.request_id is not None and self._open.get(answer.request_id) is answer:
            del self._open[answer.request_id]
        if answer is self._stream:
            self._stream = None
        if answer.is_told:
            self._telling -= 1
            if self.is_closed and not self._telling:
                self._end_session()
        if self._on_idle is not None and not self._open:
            on_idle, self._on_idle = self._on_idle, None
            on_idle()

    def abandon(self, exchange_id: int) -> None:
        self._port.close(exchange_id)

    def send(self, data: bytes, about: bytes | None, exchange_id: int | None) -> None:
        """Send a message of an exchange that reads on when the client has taken it, or (None) of one that has ended."""
        if self.is_closed:
            return
        written = self._outlet.send(data, about)
        if written is None or written.done():
            self._taken(written, 0, exchange_id)
            return
        size = len(data)
        self._unread_bytes += size
        written.add_done_callback(lambda done: self._taken(done, size, exchange_id))

    def _taken(self, written: asyncio.Future[None] | None, size: int, exchange_id: int | None) -> None:
        self._unread_bytes -= size
        has_arrived = written is None or (not written.cancelled() and written.exception() is None)
        if exchange_id is not None and has_arrived and not self.is_closed:
            self._port.flushed(exchange_id, 1)


def logged_out(request_id: bytes | None = None) -> Refused:
    """For who goes on asking over a connection whose token has expired or was revoked."""
    text = "what this connection was opened with has expired or was revoked; log in again, and connect anew"
    return Refused("unauthorized", text, request_id=request_id, data={"error": "invalid_token"})


class _ChannelAnswer:
    """The answer of one exchange on its way into the channel. Implements `edge_port.AnswerSink`."""

    __slots__ = (
        "_channel",
        "_held",
        "_is_over",
        "exchange_id",
        "is_modern",
        "is_stream",
        "is_told",
        "method",
        "request_id",
        "started_s",
        "step_up",
    )

    def __init__(self, channel: ClientChannel, exchange: Exchange, held: HeldBytes | None = None) -> None:
        self._channel = channel
        self._held = held
        self._is_over = False
        self.is_told = exchange.kind is RequestKind.MESSAGE
        self.exchange_id = exchange.exchange_id
        self.method = exchange.method
        self.request_id = exchange.request_id
        self.is_modern = is_modern(exchange.revision)
        self.is_stream = exchange.deadline_s == _FOREVER
        self.started_s = time.monotonic()
        self.step_up: Refused | None = None  # what the request needs that another token would have: the transport tells it

    def answer(self, status: int, body: Pieces, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        if self._is_over:
            return
        self._channel.count(self, backend, "ok" if status < 400 else "error", upstream_s)
        if self.method == "initialize":
            self._channel.initialized(headers.get("Mcp-Session-Id"))
        if body and self.request_id is not None:
            self._channel.send(joined(body), self.request_id, None)
        self._end()

    def refuse(self, refused: Refused, backend: str) -> None:
        if self._is_over:
            return
        self._channel.count(self, backend, refused.reason, refused.upstream_s)
        if self.method == "initialize":
            self._channel.initialized(None)
        if self.request_id is not None:
            refused.request_id = self.request_id
            if refused.reason == "insufficient_scope" and self._channel.may_step_up:
                self.step_up = refused
            else:
                self._channel.send(refused.body(), self.request_id, None)
        self._end()

    def begin(self, headers: Mapping[str, str]) -> None:
        """Nothing: on this connection every message stands alone."""

    def event(self, data: bytes, event_id: str | None) -> None:
        if self._is_over:
            return
        if data:
            self._channel.send(data, self.request_id, self.exchange_id)
        else:
            self._channel.skip(self.exchange_id)

    def end(self, backend: str, upstream_s: float) -> None:
        if not self._is_over:
            self._channel.count(self, backend, "ok", upstream_s)
            self._end()

    def abandon(self, outcome: str) -> None:
        """Nobody waits for this answer any more."""
        if not self._is_over:
            self._channel.abandon(self.exchange_id)
            self._channel.count(self, "", outcome, 0.0)
            self._end()

    def _end(self) -> None:
        self._is_over = True
        if self._held is not None:
            self._held.release()
        self._channel.over(self)
