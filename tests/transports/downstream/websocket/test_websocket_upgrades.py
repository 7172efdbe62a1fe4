"""How requests become WebSockets, what is agreed on then, how the open ones are kept alive and ended in a drain."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
import zlib

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.doubles.echo_sockets import PATH, EchoServer, with_echo
from tests.doubles.raw_websocket import CLOSE, PING, PONG, TEXT, RawFrame, RawWebSocket, frame

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


def test_small_messages_do_not_wait_for_the_clients_word_about_the_one_before() -> None:
    """Source: RFC 1122, section 4.2.3.4: with Nagle's algorithm and a delayed acknowledgement a call took 44 ms."""

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            client.send(TEXT, b"x")
            await client.receive()
            connection = echo.users[0].connection._stream.socket
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    with_echo(body)


def test_what_a_client_sends_before_it_has_read_the_answer_is_served() -> None:
    async def body(echo: EchoServer) -> None:
        async with RawWebSocket(echo.number, PATH, follows=frame(TEXT, b"at once")) as client:
            assert (client.status, await client.receive()) == (101, RawFrame(TEXT, b"at once"))

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
                while echo.open_count == 2:
                    await asyncio.sleep(0.01)
            async with echo.client() as fourth:
                assert fourth.status == 101

    with_echo(body, max_connections=2)


# ---- compression


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


# ---- pings, and the end


def test_a_client_that_does_not_answer_a_ping_is_given_up() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            assert (await client.receive_any()).opcode == PING
            received = await client.receive()
            assert (received.code, received.payload[2:]) == (1011, b"no pong within 0.1 s")
            assert await client.is_ended()
        await echo.until_closed()

    with_echo(body, ping_interval=0.1, pong_timeout=0.1)


def test_a_pause_of_the_gateway_itself_is_not_taken_for_a_silent_client() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            ping = await client.receive_any()
            client.send(PONG, ping.payload)
            time.sleep(2.0)  # noqa: ASYNC251 - the gateway runs on this loop: the pong is there, and it could not read it
            assert (await client.receive_any()).opcode == PING

    with_echo(body, ping_interval=1.0, pong_timeout=1.0)


def test_a_client_that_answers_pings_stays() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            for _ in range(3):
                ping = await client.receive_any()
                assert ping.opcode == PING
                client.send(PONG, ping.payload)
            client.send(TEXT, b"still here")
            while (received := await client.receive_any()).opcode == PING:
                client.send(PONG, received.payload)
            assert received == RawFrame(TEXT, b"still here")

    with_echo(body, ping_interval=1.0, pong_timeout=1.0)


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
            while echo.open_count != count:
                await asyncio.sleep(0.01)

    with_echo(body)
