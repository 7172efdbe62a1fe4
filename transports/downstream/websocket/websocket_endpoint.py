"""MCP over WebSocket for clients: one JSON-RPC message in each text frame, both ways, and a session as long as the connection.

The specification leaves custom transports open; this one keeps JSON-RPC and the lifecycle of MCP as they are.
Source: MCP 2025-11-25, basic/transports, "Custom Transports"; the subprotocol `mcp` and binary frames are the gateway's contract.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from mcp_gateway.transports.downstream.exchanges.batch import BATCH_REVISION, batch_messages, is_batch
from mcp_gateway.transports.downstream.exchanges.client_channel import ClientChannel, connected_client
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.protocol.mcp.refusals import Refused

from .websocket_connection import WebSocket
from .websocket_upgrades import TRANSPORT, WebSockets

WEBSOCKET_PATH: Final = "/mcp/ws"
_SUBPROTOCOL: Final = "mcp"


class WebSocketTransport:
    """Registry strategy for MCP over WebSocket and for Phoenix sockets."""

    name = TRANSPORT
    paths = (WEBSOCKET_PATH, "/mcp/websocket")


class WebSocketEndpoint:
    """Serves `GET /mcp/ws`, and with `?backend=NAME` one backend alone."""

    def __init__(self, server: GatewayServer, port: EdgePort, sockets: WebSockets) -> None:
        self._server = server
        self._port = port
        self._sockets = sockets

    def handle(self, incoming: Incoming) -> None:
        client = connected_client(incoming, TRANSPORT, self._port.terms.hash_keys)

        def make_user(connection: WebSocket) -> _Client:
            user = _Client(connection)
            user.channel = ClientChannel(self._port, self._server.limiter, self._server.buffered, user, client)
            return user

        self._sockets.upgrade(incoming, _SUBPROTOCOL, make_user)


class _Client:
    """One client on its WebSocket. Implements `websocket_connection.SocketUser` and `client_channel.Outlet`."""

    __slots__ = ("_connection", "channel")

    def __init__(self, connection: WebSocket) -> None:
        self._connection = connection
        self.channel: ClientChannel

    def take(self, data: bytes, is_text: bool) -> None:
        """What is no message is answered by an error, and nothing else on the connection suffers.

        The messages of a batch are answered one by one, as they are ready: nothing on this connection is an answer to a frame.
        """
        session = self.channel.session
        try:
            takes_batch = session is not None and session.revision == BATCH_REVISION and is_batch(data)
            messages = batch_messages(data) if takes_batch else [data]
        except Refused as refused:
            self._connection.send(refused.body())
            return
        for message in messages:
            try:
                self.channel.receive(message)
            except Refused as refused:
                self._connection.send(refused.body())

    def closed(self) -> None:
        self.channel.close()

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        self.channel.when_idle(on_idle)

    def log_out(self, on_idle: Callable[[], None]) -> None:
        self.channel.log_out(on_idle)

    def send(self, data: bytes, about: bytes | None) -> asyncio.Future[None] | None:
        return self._connection.send(data)
