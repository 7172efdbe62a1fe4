"""Streamable HTTP for clients: `POST`, `GET` and `DELETE` on one endpoint, every revision from 2025-03-26 on."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from mcp_gateway.transports.downstream.exchanges.batch import BATCH_REVISION, Batch, BatchPart, batch_messages, is_batch
from mcp_gateway.transports.downstream.exchanges.client_channel import logged_out
from mcp_gateway.transports.downstream.exchanges.event_writes import EventWrites
from mcp_gateway.transports.downstream.exchanges.request_metrics import count_request
from mcp_gateway.transports.downstream.server.accept import EVENTS, JSON, names, quality, refuses
from mcp_gateway.transports.downstream.server.incoming import Incoming, check_stream_is_taken, method_not_allowed
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.ports.edge_port import EdgePort, Exchange
from mcp_gateway.transports.ports.hash_keys import chosen_tools
from mcp_gateway.transports.ports.loop_tasks import retrieve
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined
from mcp_gateway.transports.protocol.framing.sse import KEEP_ALIVE, encode_event
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.handshake import initialize_revision
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request
from mcp_gateway.transports.protocol.mcp.modern_rules import check_modern_request, is_modern_post, unsupported_version
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import MODERN_REVISIONS, NEWEST, REVISIONS
from mcp_gateway.transports.protocol.mcp.trace_context import context_in_headers
from mcp_gateway.transports.protocol.merging.naming import route_target
from mcp_gateway.transports.protocol.sealed.session import SessionState

_logger = logging.getLogger(__name__)
_ENDPOINT: Final = "/mcp"
_SERVERS: Final = "/mcp/servers/"
STREAMABLE_HTTP_PATHS: Final = (_ENDPOINT, f"{_SERVERS}…")
_FOREVER: Final = float("inf")
_COME_BACK_MS: Final = 1_000


class StreamableHttpTransport:
    """Registry strategy for Streamable HTTP clients."""

    name = "streamable_http"
    paths = (_ENDPOINT, _SERVERS + "{backend}")


class StreamableHttpEndpoint:
    """Turns a request into an exchange, or refuses it. Serves `/mcp` and `/mcp/servers/{backend}`, with `/mcp` after it too.

    transport: by which its requests come, where that is another that carries the same.
    """

    def __init__(self, server: GatewayServer, port: EdgePort, transport: str = StreamableHttpTransport.name) -> None:
        self._server = server
        self._port = port
        self._transport = transport

    def handle(self, incoming: Incoming) -> None:
        try:
            self._handle(incoming)
        except Refused as refused:
            count_request(self._transport, "other", "", refused.reason, 0.0, 0.0)
            raise

    def _handle(self, incoming: Incoming) -> None:
        if self._transport not in self._port.enabled_transports:
            raise Refused("draining", "this transport is not served now", request_id=jsonrpc.request_id_in(incoming.body))
        if self._port.is_draining and not (self._server.sends_away and incoming.method in ("POST", "DELETE")):
            raise Refused("draining", "the gateway is draining", request_id=jsonrpc.request_id_in(incoming.body))
        of_one = incoming.path.startswith(_SERVERS)
        # Clients may make up an address that ends in /mcp. Names of backends have no slash.
        endpoint = unquote(incoming.path.removeprefix(_SERVERS).removesuffix("/mcp")) if of_one else ""
        if incoming.method == "POST":
            self._post(incoming, endpoint)
        elif incoming.method == "GET":
            self._get(incoming, endpoint)
        elif incoming.method == "DELETE":
            self._delete(incoming, endpoint)
        else:
            method_not_allowed(incoming, "GET, POST, DELETE")

    # ---- the three methods

    def _post(self, incoming: Incoming, endpoint: str) -> None:
        """Source: MCP 2026-07-28 and 2025-11-25, basic/transports, "Sending Messages"."""
        headers = incoming.headers
        content_type = headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise Refused("invalid_request", f"Content-Type must be application/json, not {content_type[:100]!r}")
        version = headers.get("Mcp-Protocol-Version")
        if is_batch(incoming.body):
            self._post_batch(incoming, endpoint, version)
            return
        message = jsonrpc.decode_from_client(incoming.body)
        if isinstance(message, Request):
            accept = headers.get("Accept", "")
            if refuses(accept, JSON) and not quality(accept, EVENTS):
                text = "Accept refuses application/json and does not take text/event-stream"
                raise Refused("invalid_request", text, request_id=message.id, status=406)
            if is_modern_post(version, message.params):
                self._post_modern(incoming, endpoint, message, version)
            elif message.method == "initialize":
                self._post_initialize(incoming, endpoint, message)
            else:
                self._post_in_session(incoming, endpoint, message, version)
        elif version in MODERN_REVISIONS:
            if not isinstance(message, Notification):
                raise Refused("invalid_request", f"revision {version} has no responses of clients")
            incoming.respond(202, b"", {})  # the revision defines no notifications of clients over HTTP: nobody waits for one
        else:
            self._post_in_session(incoming, endpoint, message, version)

    def _post_modern(self, incoming: Incoming, endpoint: str, message: Request, version: str | None) -> None:
        headers = incoming.headers
        item = check_modern_request(message, version, headers.get("Mcp-Method"), headers.get("Mcp-Name"))
        target = f"{message.method}/{item}" if item is not None else route_target(message.method, message.params, message.id)
        is_stream = message.method == "subscriptions/listen"
        forwarded = {name.lower(): value for name, value in headers.items() if name.startswith("Mcp-Param-")}
        self._open(incoming, endpoint, message, NEWEST, target, forwarded=forwarded, is_stream=is_stream)

    def _post_initialize(self, incoming: Incoming, endpoint: str, message: Request) -> None:
        revision = initialize_revision(message)
        self._open(incoming, endpoint, message, revision, "initialize", new_session=secrets.token_urlsafe(9))

    def _post_batch(self, incoming: Incoming, endpoint: str, version: str | None) -> None:
        messages = batch_messages(incoming.body)
        if version not in (None, BATCH_REVISION) or self._session(incoming, endpoint, None).revision != BATCH_REVISION:
            raise Refused("invalid_request", f"only revision {BATCH_REVISION} has batches")
        batch = Batch(incoming, len(messages), self._server.max_message_bytes)
        for part, body in zip(batch.parts, messages, strict=True):
            try:
                message = jsonrpc.decode_from_client(body)
                if isinstance(message, Request) and message.method == "initialize":
                    raise Refused("invalid_request", "initialize must not be part of a batch", request_id=message.id)
                self._post_in_session(part, endpoint, message, version)
            except Refused as refused:
                part.refuse(refused)

    def _post_in_session(self, incoming: Incoming | BatchPart, endpoint: str, message: Message, version: str | None) -> None:
        request_id = message.id if isinstance(message, Request) else None
        if version is not None and version not in REVISIONS:
            raise unsupported_version(version, request_id)
        session = self._session(incoming, endpoint, request_id)
        if isinstance(message, Request):
            if message.method == "ping":
                self._admit(self._keys_of(incoming), session, message.id, is_ping=True)
                count_request(self._transport, "ping", "", "ok", 0.0, 0.0)
                _respond(incoming, 200, jsonrpc.encode_result(message.id, {}), {})
                return
            target = route_target(message.method, message.params, message.id)
        else:
            target = message.method if isinstance(message, Notification) else "response"
        self._open(incoming, endpoint, message, session.revision, target, session=session)

    def _keys_of(self, incoming: Incoming | BatchPart) -> dict[str, str]:
        return self._port.terms.hash_keys.of_connection(incoming.headers, incoming.query, incoming.remote_ip, incoming.principal)

    def _admit(
        self, connection: Mapping[str, str], session: SessionState | None, request_id: bytes, *, is_ping: bool = False
    ) -> None:
        """Raises: Refused with rate_limited."""
        if self._server.limiter.is_on:
            keys = self._port.terms.hash_keys.of_message(connection, session, "", None)
            self._server.limiter.admit(keys, request_id, is_ping=is_ping)

    def _get(self, incoming: Incoming, endpoint: str) -> None:
        """Source: MCP 2025-11-25, basic/transports, "Listening for Messages from the Server"."""
        version = incoming.headers.get("Mcp-Protocol-Version")
        if version not in MODERN_REVISIONS:
            check_stream_is_taken(incoming)
        if version in MODERN_REVISIONS or not names(incoming.headers.get("Accept", ""), EVENTS):
            method_not_allowed(incoming, "POST")
            return
        session = self._session(incoming, endpoint, None)
        self._open(incoming, endpoint, None, session.revision, "", session=session, kind=RequestKind.STREAM, is_stream=True)

    def _delete(self, incoming: Incoming, endpoint: str) -> None:
        if incoming.headers.get("Mcp-Protocol-Version") in MODERN_REVISIONS:
            method_not_allowed(incoming, "POST")
            return
        session = self._session(incoming, endpoint, None)
        self._open(incoming, endpoint, None, session.revision, "", session=session, kind=RequestKind.TERMINATE)

    # ---- parts

    def _session(self, incoming: Incoming | BatchPart, endpoint: str, request_id: bytes | None) -> SessionState:
        session_id = incoming.headers.get("Mcp-Session-Id")
        if session_id is None:
            raise Refused("invalid_request", "Mcp-Session-Id is required; open a session with initialize", request_id=request_id)
        session = self._port.read_session(session_id, incoming.principal)
        if session is None or session.endpoint != endpoint:
            raise Refused("session_not_found", "no such session; open a new one with initialize", request_id=request_id)
        return session

    def _open(
        self,
        incoming: Incoming | BatchPart,
        endpoint: str,
        message: Message | None,
        revision: str,
        target: str,
        *,
        session: SessionState | None = None,
        new_session: str = "",
        kind: RequestKind | None = None,
        is_stream: bool = False,
        forwarded: Mapping[str, str] | None = None,
    ) -> None:
        request_id = message.id if isinstance(message, Request) else None
        connection = self._keys_of(incoming)
        if request_id is not None:
            self._admit(connection, session, request_id)
        try:
            self._server.take_connection(self._transport, incoming.holder)
        except Refused as refused:
            refused.request_id = request_id
            raise
        shown = incoming.headers
        accept = shown.get("Accept", "")
        travels_on = context_in_headers(shown)
        exchange = Exchange(
            exchange_id=self._port.next_exchange_id(),
            transport=self._transport,
            revision=revision,
            endpoint=endpoint,
            tools=chosen_tools(incoming.headers, incoming.query),
            kind=kind or RequestKind.of(message),
            message=message,
            target=target,
            session=session,
            hash_keys=self._port.terms.hash_keys.of_message(connection, session, new_session, message),
            headers={**travels_on, **forwarded} if forwarded else travels_on,
            deadline_s=_FOREVER if is_stream else time.monotonic() + self._port.terms.timeout_s,
            principal=incoming.principal,
            last_event_id=shown.get("Last-Event-Id") if kind is RequestKind.STREAM else None,
            takes_events=not accept or bool(quality(accept, EVENTS)),
        )
        self._port.open(exchange, _Answer(self._server, self._port, incoming, exchange))


class _Answer:
    """The answer of one exchange on its way to the client: JSON at once, or an event stream. Implements `AnswerSink`."""

    __slots__ = (
        "_call_off",
        "_events",
        "_exchange_id",
        "_has_begun",
        "_incoming",
        "_is_over",
        "_method",
        "_port",
        "_request_id",
        "_server",
        "_started_s",
        "_transport",
    )

    def __init__(self, server: GatewayServer, port: EdgePort, incoming: Incoming | BatchPart, exchange: Exchange) -> None:
        self._server = server
        self._port = port
        self._incoming = incoming
        self._exchange_id = exchange.exchange_id
        self._method = exchange.method
        self._transport = exchange.transport
        self._request_id = exchange.request_id
        self._has_begun = False
        self._is_over = False
        self._events = EventWrites(incoming.write, self._taken)
        self._started_s = time.monotonic()
        incoming.on_client_gone(self._client_gone)
        # A call that runs when its client's token expires ends well: it was allowed when it began.
        streaming = exchange.principal if exchange.deadline_s == _FOREVER else None
        self._call_off = server.on_log_out(streaming, self._log_out)

    # ---- AnswerSink

    def answer(self, status: int, body: Pieces, headers: Mapping[str, str], backend: str, upstream_s: float) -> None:
        if self._is_over:
            return
        self._close(backend, "ok" if status < 400 else "error", upstream_s)
        _respond(self._incoming, status, body, headers)
        self._incoming.when_sent(self._release)

    def refuse(self, refused: Refused, backend: str) -> None:
        if self._is_over:
            return
        self._close(backend, refused.reason, refused.upstream_s)
        if self._has_begun:
            if self._request_id is not None:
                refused.request_id = self._request_id
                self._events.add(encode_event(refused.body()))
            self._end_stream()
        else:
            self._incoming.refuse(refused)
        self._incoming.when_sent(self._release)

    def begin(self, headers: Mapping[str, str]) -> None:
        if self._is_over:
            return
        self._has_begun = True
        self._incoming.begin(headers)
        self._server.open_streams.add(self)

    def event(self, data: bytes, event_id: str | None) -> None:
        if self._is_over:
            return
        # An event without data only says where to go on, so its client will come back: it is told when.
        # Source: MCP 2025-11-25, basic/transports, "Sending Messages to the Server", item 6.
        retry_ms = None if data else _COME_BACK_MS
        self._events.add(encode_event(data, event_id=event_id, retry_ms=retry_ms))

    def end(self, backend: str, upstream_s: float) -> None:
        if self._is_over:
            return
        self._close(backend, "ok", upstream_s)
        self._end_stream()
        self._incoming.when_sent(self._release)

    # ---- the connection

    def keep_alive(self) -> None:
        self._incoming.write(KEEP_ALIVE).add_done_callback(retrieve)

    def _taken(self, event_count: int) -> None:
        if not self._is_over:
            self._port.flushed(self._exchange_id, event_count)

    def _end_stream(self) -> None:
        self._events.finish()
        self._incoming.end()

    def _client_gone(self) -> None:
        if not self._is_over:
            self._port.close(self._exchange_id)
            self._close("", "client_gone", 0.0)
            self._release()

    def _log_out(self) -> None:
        """What the client has shown has ended, and with it its stream."""
        if not self._is_over:
            self._port.close(self._exchange_id)
            self.refuse(logged_out(), "")

    def _close(self, backend: str, outcome: str, upstream_s: float) -> None:
        """Before the client has the answer: one that it has is counted, whoever looks."""
        self._is_over = True
        self._call_off()
        self._server.open_streams.discard(self)
        duration_s = time.monotonic() - self._started_s
        count_request(self._transport, self._method, backend, outcome, duration_s, upstream_s)

    def _release(self) -> None:
        self._server.release_connection(self._transport, self._incoming.holder)


def _respond(incoming: Incoming | BatchPart, status: int, body: Pieces, headers: Mapping[str, str]) -> None:
    """Send a whole answer; a result for a client that takes no JSON is a stream of one event."""
    if status != 200 or not body or not refuses(incoming.headers.get("Accept", ""), JSON):
        incoming.respond(status, body, headers)
        return
    incoming.begin(headers)
    incoming.write(encode_event(joined(body))).add_done_callback(retrieve)
    incoming.end()
