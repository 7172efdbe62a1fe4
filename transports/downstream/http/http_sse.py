"""HTTP+SSE for clients, the transport of 2024-11-05: a stream down, POSTs up, and a session as long as the stream.

Source: MCP 2024-11-05, basic/transports, "HTTP with SSE".
"""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import attrs
import msgspec

from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.downstream.exchanges.client_channel import ClientChannel, connected_client
from mcp_gateway.transports.downstream.server.incoming import Incoming, check_stream_is_taken, method_not_allowed
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.hash_keys import query_value
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, retrieve
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.framing.sse import HEARTBEAT, encode_event
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.refusals import Refused

_SERVERS: Final = "/mcp/servers/"
_STREAMS: Final = ("/mcp/sse/connect", "/sse", "/mcp/sse", f"{_SERVERS}…/sse")
"""Besides the gateway's own: clients take an address for HTTP+SSE that ends in /sse, or make one up from the rest of it."""
_MESSAGES: Final = tuple(f"{stream.rpartition('/')[0]}/messages" for stream in _STREAMS)
_NAME: Final = "http_sse"
_TICK_S: Final = 1.0
_FORWARD_S: Final = 5.0
HTTP_SSE_PATHS: Final = (*_STREAMS, *_MESSAGES)


class HttpSseTransport:
    """Registry strategy for HTTP+SSE clients and for event streams."""

    name = _NAME
    paths = (*(path.replace("…", "{backend}") for path in HTTP_SSE_PATHS), "/mcp/sse/events/{topic}")


@attrs.frozen(kw_only=True)
class PostedMessage:
    """Cell -> the cell that holds the stream: a client of yours has posted this here, and this is who it has shown to be."""

    connection_id: str
    principal: Principal | None = attrs.field(default=None, repr=False)
    body: bytes = attrs.field(repr=False)

    @property
    def weight_bytes(self) -> int:
        return len(self.body)


@attrs.frozen(kw_only=True)
class PostTaken:
    """The answer: it is taken, or `Refused` for this reason, with its text, id, data and status."""

    reason: str | None = None
    text: str = ""
    request_id: bytes | None = None
    data: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    status: int = 202
    retry_after_s: float | None = None

    @classmethod
    def unless(cls, refused: Refused) -> PostTaken:
        return cls(
            reason=refused.reason,
            text=refused.text,
            request_id=refused.request_id,
            data=refused.data,
            status=refused.status,
            retry_after_s=refused.retry_after_s,
        )

    def answer(self, incoming: Incoming) -> None:
        """Answer the POST."""
        if self.reason is None:
            incoming.respond(self.status, b"", {})
            return
        refused = Refused(self.reason, self.text, request_id=self.request_id, data=dict(self.data), status=self.status)
        refused.retry_after_s = self.retry_after_s
        incoming.refuse(refused)


class _Connection:
    """One client's stream. Implements `client_channel.Outlet`."""

    __slots__ = ("call_off", "channel", "connection_id", "heartbeat_due_s", "incoming")

    def __init__(self, incoming: Incoming, connection_id: str) -> None:
        self.incoming = incoming
        self.connection_id = connection_id
        self.channel: ClientChannel
        self.call_off: Callable[[], None]
        self.heartbeat_due_s = 0.0

    def send(self, data: bytes, about: bytes | None) -> asyncio.Future[None]:
        return self.write(encode_event(data, event="message"))

    def write(self, event: bytes) -> asyncio.Future[None]:
        written = self.incoming.write(event)
        written.add_done_callback(retrieve)
        return written

    def end(self) -> None:
        self.incoming.end()


class HttpSseEndpoint:
    """Serves `GET /mcp/sse/connect` and `POST /mcp/sse/messages`, and the same at other addresses.

    The session in its query finds the stream, whichever of the addresses a message comes to; one that reaches another cell is
    passed on.
    """

    def __init__(self, settings: Settings, server: GatewayServer, port: EdgePort) -> None:
        self._server = server
        self._port = port
        self._heartbeat_s = settings.transports.http_sse.heartbeat_interval or float("inf")
        self._connections: dict[str, _Connection] = {}
        self._tasks = HeldTasks()
        self._timer: asyncio.TimerHandle | None = None
        server.on_drain(self._drain)
        port.cells.answer_cells(PostedMessage, self._take)

    def handle(self, incoming: Incoming) -> None:
        if _NAME not in self._port.enabled_transports:
            raise Refused("draining", "this transport is not served now", request_id=jsonrpc.request_id_in(incoming.body))
        takes_messages = incoming.path.endswith("/messages")
        if incoming.method != ("POST" if takes_messages else "GET"):
            method_not_allowed(incoming, "POST" if takes_messages else "GET")
        elif takes_messages:
            self._post(incoming)
        else:
            self._connect(incoming)

    # ---- the stream

    def _connect(self, incoming: Incoming) -> None:
        if self._port.is_draining:
            raise Refused("draining", "the gateway is draining")
        check_stream_is_taken(incoming)
        self._server.take_connection(_NAME, incoming.holder)
        # The name of the cell finds the stream again; that the rest cannot be guessed is what protects it.
        connection = _Connection(incoming, f"{self._port.cells.cell_name.replace('/', '~')}.{secrets.token_urlsafe(18)}")
        backend = unquote(incoming.path[len(_SERVERS) : -len("/sse")]) if incoming.path.startswith(_SERVERS) else ""
        client = connected_client(incoming, _NAME, self._port.terms.hash_keys, backend)
        connection.channel = ClientChannel(self._port, self._server.limiter, self._server.buffered, connection, client)
        self._connections[connection.connection_id] = connection
        connection.call_off = self._server.on_log_out(
            incoming.principal, lambda: connection.channel.log_out(functools.partial(self._end, connection))
        )
        incoming.on_client_gone(lambda: self._client_gone(connection))
        incoming.begin({})
        uri = f"{_beside(incoming)}?session_id={connection.connection_id}"
        shown = msgspec.json.encode({"connection_id": connection.connection_id})
        connection.write(encode_event(uri.encode(), event="endpoint") + encode_event(shown, event="connected"))
        connection.heartbeat_due_s = time.monotonic() + self._heartbeat_s
        if self._timer is None:
            self._tick()

    def _client_gone(self, connection: _Connection) -> None:
        if self._connections.pop(connection.connection_id, None) is not None:
            connection.call_off()
            connection.incoming.when_sent(lambda: self._server.release_connection(_NAME, connection.incoming.holder))
            connection.channel.close()

    def _tick(self) -> None:
        """Heartbeats of all connections from one timer, which runs while there are any."""
        now_s = time.monotonic()
        for connection in self._connections.values():
            if now_s >= connection.heartbeat_due_s:
                connection.heartbeat_due_s = now_s + self._heartbeat_s
                if not connection.channel.is_congested:
                    connection.write(HEARTBEAT)
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick) if self._connections else None

    def _drain(self) -> None:
        for connection in list(self._connections.values()):
            connection.channel.when_idle(functools.partial(self._end, connection))

    def _end(self, connection: _Connection) -> None:
        connection.end()
        self._client_gone(connection)

    # ---- the messages

    def _post(self, incoming: Incoming) -> None:
        connection_id = query_value(incoming.query, "session_id") or ""
        content_type = incoming.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise Refused("invalid_request", f"Content-Type must be application/json, not {content_type[:100]!r}")
        posted = PostedMessage(connection_id=connection_id, principal=incoming.principal, body=incoming.body)
        owner = connection_id.partition(".")[0].replace("~", "/")
        if connection_id in self._connections:
            incoming.take_body()
            self._take(posted).answer(incoming)
        elif owner in self._port.cells.other_cells:
            self._tasks.start(self._forward(incoming, owner, posted))
        else:
            raise _unknown(incoming.body)

    async def _forward(self, incoming: Incoming, owner: str, posted: PostedMessage) -> None:
        """Pass the message on to the cell that holds the stream; if that cell has died, the stream has died with it."""
        try:
            taken: PostTaken = await self._port.cells.ask_cell(owner, posted, _FORWARD_S)
            taken.answer(incoming)
        except LookupError:
            incoming.refuse(_unknown(incoming.body))
        except TimeoutError:
            text = "the cell that holds the stream does not answer"
            incoming.refuse(Refused("upstream_timeout", text, request_id=jsonrpc.request_id_in(incoming.body)))

    def _take(self, posted: PostedMessage) -> PostTaken:
        """A refusal is told twice: as the status of the POST, and on the stream to the client that waits for its answer there.

        But not that another token is needed: its client gets one and posts again, and waits for one answer.
        The stream is its principal's; another one is told nothing of it, and nothing is told there.
        """
        connection = self._connections.get(posted.connection_id)
        if connection is None or not connection.channel.is_of(posted.principal):
            return PostTaken.unless(_unknown(posted.body))
        connection.channel.principal = posted.principal  # who steps up to more scopes shows them here
        try:
            if connection.channel.is_congested:
                request_id = jsonrpc.request_id_in(posted.body)
                raise Refused("rate_limited", "the client does not read its stream", request_id=request_id)
            connection.channel.receive(posted.body)
        except Refused as refused:
            if refused.request_id is not None and refused.reason != "insufficient_scope":
                connection.send(refused.body(), refused.request_id)
            return PostTaken.unless(refused)
        return PostTaken()


def _beside(stream: Incoming) -> str:
    """Where to post, as a reference relative to the address of the stream, which only the client knows: a proxy in between may
    serve the gateway under another path. Source: RFC 3986, section 5.2; 2024-11-05 asks for "a URI for the client to use".
    """
    return "../messages" if stream.ends_in_slash else "messages"


def _unknown(body: bytes) -> Refused:
    text = "no such session; open its stream first, with GET /mcp/sse/connect"
    return Refused("session_not_found", text, request_id=jsonrpc.request_id_in(body))
