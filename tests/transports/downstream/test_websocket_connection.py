"""WebSocket connections: who may open one, what ends one and with which code, how much of a message may wait."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from mcp_gateway.transports.downstream.server import GatewayServer, Incoming
from mcp_gateway.transports.downstream.websocket_connection import MOST_UNSENT_BYTES, WebSocket, WebSockets
from tests.doubles.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawFrame, RawWebSocket, frame
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
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.number}{PATH}"

    async def until_closed(self, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while sum(user.closed_count for user in self.users) < count or self.sockets.count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def echo_server(gateway: dict[str, Any] | None = None, **websocket: Any) -> AsyncIterator[EchoServer]:
    gateway = {"max_message_bytes": MAX_BYTES, **(gateway or {})}
    made = cell_settings(gateway=gateway, transports={"websocket": websocket})
    port: Any = SimpleNamespace(is_draining=False, enabled_transports=frozenset({"websocket"}), publish=lambda *_: None)
    server = GatewayServer(made, port)
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
        async with echo_server(**websocket) as echo, asyncio.timeout(30):
            await body(echo)

    asyncio.run(run())


# ---- the upgrade


@pytest.mark.parametrize(
    ("headers", "start", "status", "reason", "shown"),
    [
        ({"Upgrade": None, "Connection": None}, "GET", 426, "invalid_request", {"upgrade": "websocket", "connection": "Upgrade"}),
        ({"Upgrade": "h2c"}, "GET", 426, "invalid_request", {"upgrade": "websocket"}),
        ({"Connection": "keep-alive"}, "GET", 426, "invalid_request", {}),
        ({"Sec-WebSocket-Version": "8"}, "GET", 426, "invalid_request", {"sec-websocket-version": "13"}),
        ({"Sec-WebSocket-Version": None}, "GET", 400, "invalid_request", {}),
        ({"Sec-WebSocket-Key": None}, "GET", 400, "invalid_request", {}),
        ({"Sec-WebSocket-Key": "short"}, "GET", 400, "invalid_request", {}),
        ({"Sec-WebSocket-Extensions": "=;="}, "GET", 400, "invalid_request", {}),
        ({"Content-Length": "0"}, "POST", 405, "invalid_request", {"allow": "GET"}),
        ({}, "GET /echo HTTP/1.0", 505, "invalid_request", {}),
        ({"Origin": "https://evil.example"}, "GET", 403, "origin_forbidden", {}),
        ({"Host": "evil.example"}, "GET", 403, "origin_forbidden", {}),
    ],
)
def test_a_request_that_is_no_upgrade_of_ours_is_refused_before_it(
    headers: dict[str, str | None], start: str, status: int, reason: str, shown: dict[str, str]
) -> None:
    """Source: RFC 6455, sections 4.2.1 and 4.2.2; RFC 9110, section 15.5.22."""

    async def body(echo: EchoServer) -> None:
        async with echo.client(headers, start=start) as client:
            assert (client.status, json.loads(client.body)["error"]["data"]["reason"]) == (status, reason)
            assert shown.items() <= client.headers.items()
        assert echo.users == []

    with_echo(body)


@pytest.mark.parametrize(
    ("offered", "selected"), [(None, None), ("mcp", "mcp"), ("other, mcp", "mcp"), ("other", None), ("MCP", None)]
)
def test_the_subprotocol_is_selected_where_offered_and_required_of_nobody(offered: str | None, selected: str | None) -> None:
    """Source: RFC 6455, section 4.2.2: a server that agrees to none sends no such header, and the client decides."""

    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Protocol": offered}) as client:
            assert (client.status, client.headers.get("sec-websocket-protocol")) == (101, selected)
            client.send(TEXT, b"hello")
            assert await client.receive() == RawFrame(TEXT, b"hello")

    with_echo(body)


def test_a_draining_gateway_and_a_transport_that_is_off_open_no_connection() -> None:
    async def body(echo: EchoServer) -> None:
        for drains, enabled in ((True, {"websocket"}), (False, set())):
            echo.port.is_draining, echo.port.enabled_transports = drains, frozenset(enabled)
            async with echo.client() as client:
                assert (client.status, json.loads(client.body)["error"]["data"]["reason"]) == (503, "draining")
                assert client.headers["retry-after"] == "1"

    with_echo(body)


def test_one_connection_too_many_is_refused_and_one_that_ends_makes_room() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as first, echo.client() as second:
            assert (first.status, second.status) == (101, 101)
            async with echo.client() as third:
                assert (third.status, json.loads(third.body)["error"]["data"]["reason"]) == (503, "too_many_connections")
                assert third.headers["retry-after"] == "1"
            first.send(CLOSE, struct.pack("!H", 1000))
            assert (await first.receive()).code == 1000
            first.writer.close()
            async with asyncio.timeout(10):
                while echo.sockets.count == 2:
                    await asyncio.sleep(0.01)
            async with echo.client() as fourth:
                assert fourth.status == 101

    with_echo(body, max_connections=2)


# ---- messages


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_of_every_size_and_kind_come_back_as_they_were_sent(compression: str | None) -> None:
    messages: list[Any] = ["", "x", "ä" * 100, "x" * 511, "x" * 512, b"", b"\x00\xff" * 300, "🙂" * 20_000, "x" * 1_000_000]

    async def body(echo: EchoServer) -> None:
        async with connect(echo.url, compression=compression, max_size=None) as client:
            for message in messages:
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "fragments ", "🙂" * 5_000])
            assert await client.recv() == "in fragments " + "🙂" * 5_000

    with_echo(body, gateway={"max_message_bytes": 4_000_000})


def test_only_what_is_worth_it_is_compressed_and_no_state_is_kept_for_the_next_message() -> None:
    """Source: RFC 7692, sections 7.1.1 and 7.2.1."""

    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client:
            agreed = client.headers["sec-websocket-extensions"]
            assert "server_no_context_takeover" in agreed
            assert "client_no_context_takeover" in agreed
            client.send(TEXT, b"x" * 511)
            assert await client.receive() == RawFrame(TEXT, b"x" * 511)
            seen = []
            for _ in range(2):
                client.send(TEXT, b"x" * 512)
                received = await client.receive()
                assert received.is_compressed
                seen.append(received.payload)
                inflated = zlib.decompressobj(-15).decompress(received.payload + b"\x00\x00\xff\xff")
                assert inflated == b"x" * 512
            assert seen[0] == seen[1]
            assert len(seen[0]) < 50

    with_echo(body)


def test_without_compression_in_the_settings_none_is_agreed() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client:
            assert (client.status, client.headers.get("sec-websocket-extensions")) == (101, None)

    with_echo(body, compression=False)


@pytest.mark.parametrize(
    "offer", ["x-unknown", "permessage-deflate; no_such_parameter", "permessage-deflate; server_max_window_bits=8"]
)
def test_an_extension_that_nobody_knows_is_declined(offer: str) -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": offer}) as client:
            assert (client.status, client.headers.get("sec-websocket-extensions")) == (101, None)

    with_echo(body)


def test_a_ping_is_answered_between_the_fragments_of_a_message() -> None:
    """Source: RFC 6455, section 5.4."""

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            client.send(TEXT, "é".encode()[:1], is_final=False)
            client.send(PING, b"are you there")
            client.send(CONTINUATION, "é".encode()[1:])
            assert await client.receive() == RawFrame(PONG, b"are you there")
            assert await client.receive() == RawFrame(TEXT, "é".encode())

    with_echo(body)


# ---- what ends a connection


def compressed(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


CLOSES: list[tuple[str, bytes, int | None]] = [
    ("a frame without a mask", frame(TEXT, b"x", is_masked=False), 1002),
    ("a reserved bit", frame(TEXT, b"x", reserved=1), 1002),
    ("a compressed control frame", frame(PING, b"x", reserved=4), 1002),
    ("an unknown opcode", frame(3), 1002),
    ("an unknown control opcode", frame(11), 1002),
    ("a control frame in fragments", frame(PING, is_final=False), 1002),
    ("a control frame too long", frame(PING, b"x" * 126), 1002),
    ("a continuation of nothing", frame(CONTINUATION, b"x"), 1002),
    ("a message within a message", frame(TEXT, b"x", is_final=False) + frame(TEXT, b"x"), 1002),
    ("text that is no UTF-8", frame(TEXT, b"\xff"), 1007),
    ("text that ends within a character", frame(TEXT, b"a", is_final=False) + frame(CONTINUATION, b"\xc3"), 1007),
    ("a frame beyond the limit, by its header", frame(TEXT, b"", size=MAX_BYTES + 1), 1009),
    ("a frame of 2^62 bytes, by its header", frame(BINARY, b"", size=1 << 62), 1009),
    (
        "fragments beyond the limit",
        frame(TEXT, b"x" * MAX_BYTES, is_final=False) + frame(CONTINUATION, b"x"),
        1009,
    ),
    ("a message that is too large once it is decompressed", frame(TEXT, compressed(b"x" * (MAX_BYTES + 1)), reserved=4), 1009),
    ("what is called compressed and is not", frame(TEXT, b"\xff\xff\xff", reserved=4), 1002),
    ("a defect of the handler", frame(TEXT, b"crash"), 1011),
    ("a close with a code", frame(CLOSE, struct.pack("!H", 1000) + b"bye"), 1000),
    ("a close with a code of the application", frame(CLOSE, struct.pack("!H", 4321)), 4321),
    ("a close without a code", frame(CLOSE), None),
    ("a close of one byte", frame(CLOSE, b"\x03"), 1002),
    ("a close with a code that must not be sent", frame(CLOSE, struct.pack("!H", 1005)), 1002),
    ("a close with a reason that is no UTF-8", frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
]


@pytest.mark.parametrize(("sent", "code"), [each[1:] for each in CLOSES], ids=[each[0] for each in CLOSES])
def test_the_close_code_says_why(sent: bytes, code: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """Source: RFC 6455, sections 5.1 to 5.5, 7.4.1 and 8.1; RFC 7692, section 6."""

    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client:
            client.writer.write(sent)
            assert (await client.receive()).code == code
            assert await client.is_ended()
        await echo.until_closed()

    with_echo(body)


def test_a_message_at_the_limit_is_served_in_one_frame_in_many_and_compressed() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client:
            client.send(BINARY, b"\0" * MAX_BYTES)
            client.send(BINARY, b"\0" * (MAX_BYTES - 1), is_final=False)
            client.send(CONTINUATION, b"", is_final=False)
            client.send(CONTINUATION, b"\0")
            client.send(BINARY, compressed(b"\0" * MAX_BYTES), reserved=4)
            for _ in range(3):
                received = await client.receive()
                assert zlib.decompressobj(-15).decompress(received.payload + b"\x00\x00\xff\xff") == b"\0" * MAX_BYTES

    with_echo(body)


def test_a_client_that_still_sends_reads_the_code_and_not_a_reset() -> None:
    """A socket closed with unread data sends a reset, and a reset takes from the client what it has not read yet."""

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            client.writer.write(frame(BINARY, size=50_000_000))
            for _ in range(50):
                client.writer.write(bytes(1_000_000))
                await client.writer.drain()  # raises where the server has reset the connection
            received = await client.receive()
            assert (received.code, b"limit" in received.payload) == (1009, True)
            assert await client.is_ended()

    with_echo(body)


def test_a_client_that_does_not_answer_a_ping_is_given_up() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            assert (await client.receive_any()).opcode == PING
            received = await client.receive()
            assert (received.code, received.payload[2:]) == (1011, b"no pong within 0.1 s")
            assert await client.is_ended()
        await echo.until_closed()

    with_echo(body, ping_interval=0.1, pong_timeout=0.1)


def test_a_client_that_answers_pings_stays() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            for _ in range(5):
                ping = await client.receive_any()
                assert ping.opcode == PING
                client.send(PONG, ping.payload)
            client.send(TEXT, b"still here")
            while (received := await client.receive_any()).opcode == PING:
                client.send(PONG, received.payload)
            assert received == RawFrame(TEXT, b"still here")

    with_echo(body, ping_interval=0.3, pong_timeout=0.3)


def test_a_drain_ends_a_connection_when_nothing_is_open_on_it() -> None:
    async def body(echo: EchoServer) -> None:
        async with connect(echo.url) as idle, connect(echo.url) as busy:
            echo.users[1].is_busy = True
            echo.server.drain()
            with pytest.raises(ConnectionClosed):
                await idle.recv()
            assert (idle.close_code, idle.close_reason) == (1001, "the gateway is draining")
            await busy.send("still served")
            assert await busy.recv() == "still served"
            echo.users[1].become_idle()
            with pytest.raises(ConnectionClosed):
                await busy.recv()
            assert busy.close_code == 1001

    with_echo(body)


def test_a_client_that_vanishes_or_never_answers_the_close_is_not_kept() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as gone, echo.client() as silent:
            gone.writer.transport.abort()
            await echo_count(echo, 1)
            echo.server.drain()
            assert (await silent.receive()).code == 1001
            await echo_count(echo, 0)

    async def echo_count(echo: EchoServer, count: int) -> None:
        async with asyncio.timeout(10):
            while echo.sockets.count != count:
                await asyncio.sleep(0.01)

    with_echo(body)


# ---- a slow reader


def test_a_client_that_does_not_read_is_not_heard_until_it_reads_and_misses_nothing() -> None:
    size, count = 16_384, 2_000

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            sending = asyncio.create_task(_send_all(client))
            async with asyncio.timeout(20):
                while not echo.users or echo.users[0].connection.unsent_bytes < MOST_UNSENT_BYTES:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)  # it goes on sending, and is not heard
            assert echo.users[0].connection.unsent_bytes < MOST_UNSENT_BYTES + 100_000
            assert not sending.done()
            async with connect(echo.url) as other:
                await other.send("nobody else waits")
                assert await other.recv() == "nobody else waits"
            for number in range(count):
                assert (await client.receive()).payload[:4] == struct.pack("!I", number)
            await sending

    async def _send_all(client: RawWebSocket) -> None:
        for number in range(count):
            client.send(BINARY, struct.pack("!I", number) + bytes(size))
            await client.writer.drain()

    with_echo(body, gateway={"max_message_bytes": 1_000_000})


def test_pings_without_end_from_a_client_that_does_not_read_cost_bounded_memory() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            async with asyncio.timeout(20):
                while True:
                    client.writer.write(frame(PING, b"x" * 125) * 500)
                    try:
                        await asyncio.wait_for(client.writer.drain(), 1.0)
                    except TimeoutError:
                        break
            assert echo.users[0].connection.unsent_bytes < MOST_UNSENT_BYTES + 100_000

    with_echo(body)


# ---- anything at all


@settings(max_examples=60, deadline=None)
@given(
    strategies.lists(
        strategies.one_of(
            strategies.binary(max_size=200),
            strategies.builds(
                frame,
                strategies.integers(0, 15),
                strategies.binary(max_size=130),
                is_final=strategies.booleans(),
                reserved=strategies.integers(0, 7),
                is_masked=strategies.booleans(),
                size=strategies.one_of(strategies.none(), strategies.integers(0, 1 << 63)),
            ),
        ),
        max_size=8,
    )
)
def test_whatever_bytes_come_end_at_most_their_own_connection(chunks: list[bytes]) -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client, echo.client() as other:
            for chunk in chunks:
                client.writer.write(chunk)
            client.writer.write_eof()
            codes = []
            try:
                while True:
                    received = await client.receive()
                    if received.opcode == CLOSE:
                        codes.append(received.code)
            except asyncio.IncompleteReadError:
                pass
            assert all(code is None or code in (1000, 1002, 1007, 1009, 1011) or code >= 1001 for code in codes)
            assert len(codes) <= 1
            other.send(TEXT, b"alive")
            assert await other.receive() == RawFrame(TEXT, b"alive")

    with_echo(body)
