"""A server that sends every WebSocket message back: the connection alone, without MCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.downstream.websocket.websocket_connection import WebSocket
from mcp_gateway.transports.downstream.websocket.websocket_upgrades import WebSockets
from tests.doubles.patience import patience, until
from tests.doubles.raw_websocket import RawWebSocket
from tests.doubles.running_cell import cell_settings

MAX_BYTES = 4_096
PATH = "/echo"


class EchoUser:
    """Sends every message back; one that says "crash" is a defect of the handler."""

    def __init__(self, connection: WebSocket) -> None:
        self.connection = connection
        self.is_busy = False
        self._on_idle: Callable[[], None] | None = None
        self.closed_count = 0

    def take(self, data: bytes, is_text: bool) -> None:
        if data == b"crash":
            raise RuntimeError("made to fail")
        self.connection.send(data, is_text=is_text)

    def closed(self) -> None:
        self.closed_count += 1

    def when_idle(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        if not self.is_busy:
            on_idle()

    def log_out(self, on_idle: Callable[[], None]) -> None:
        self.when_idle(on_idle)

    def become_idle(self) -> None:
        assert self._on_idle is not None
        self._on_idle()


class EchoServer:
    """users: of every connection so far."""

    def __init__(self, server: GatewayServer, sockets: WebSockets, port: Any, number: int) -> None:
        self.server = server
        self.sockets = sockets
        self.port = port
        self.number = number
        self.users: list[EchoUser] = []

    def handle(self, incoming: Incoming) -> None:
        self.sockets.upgrade(incoming, "mcp", self._user)

    def _user(self, connection: WebSocket) -> EchoUser:
        user = EchoUser(connection)
        self.users.append(user)
        return user

    def client(self, headers: dict[str, str | None] | None = None, *, start: str = "GET") -> RawWebSocket:
        return RawWebSocket(self.number, PATH, headers, start=start)

    @property
    def open_count(self) -> int:
        return self.server.connection_counts().get("websocket", 0)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.number}{PATH}"

    async def until_closed(self, count: int = 1) -> None:
        await until(lambda: sum(user.closed_count for user in self.users) >= count and not self.open_count)


@asynccontextmanager
async def echo_server(gateway: dict[str, Any] | None = None, **websocket: Any) -> AsyncIterator[EchoServer]:
    gateway = {"max_message_bytes": MAX_BYTES, **(gateway or {})}
    made = cell_settings(gateway=gateway, transports={"websocket": websocket})
    port: Any = SimpleNamespace(is_draining=False, enabled_transports=frozenset({"websocket"}), publish=lambda *_: None)
    server = GatewayServer(made, port.publish)
    sockets = WebSockets(made, server, port)
    echo = EchoServer(server, sockets, port, made.gateway.port)
    server.add_endpoint(PATH, echo)
    server.listen()
    try:
        yield echo
    finally:
        await sockets.close()
        await server.close()
        assert all(user.closed_count == 1 for user in echo.users), "each user is told of the end, once"
        assert server.connection_counts().get("websocket", 0) == 0


def with_echo(body: Callable[[EchoServer], Awaitable[None]], **websocket: Any) -> None:
    async def run() -> None:
        async with echo_server(**websocket) as echo, patience():
            await body(echo)

    asyncio.run(run())
