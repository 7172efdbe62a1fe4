"""WebSocket connections: messages, what ends one and with which code, how much of them may wait."""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings, strategies
from websockets.asyncio.client import connect

from mcp_gateway.transports.downstream.server import message_deadline
from mcp_gateway.transports.downstream.server.buffered_bytes import IN
from mcp_gateway.transports.downstream.server.read_turns import ReadTurns
from mcp_gateway.transports.downstream.websocket.websocket_connection import MOST_UNSENT_BYTES
from tests.doubles.echo_sockets import MAX_BYTES, EchoServer, with_echo
from tests.doubles.patience import until
from tests.doubles.raw_websocket import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawFrame, RawWebSocket, frame

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


def test_others_have_their_turn_between_the_frames_of_a_client_that_sends_very_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns: list[int] = []
    took = ReadTurns.took

    def noted(self: ReadTurns, part_count: int) -> None:
        turns.append(part_count)
        took(self, part_count)

    monkeypatch.setattr(ReadTurns, "took", noted)

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            client.send(TEXT, b"[", is_final=False)
            client.writer.write(frame(CONTINUATION, b"", is_final=False) * 20_000)
            client.send(CONTINUATION, b"]")
            assert await client.receive() == RawFrame(TEXT, b"[]")

    with_echo(body)
    assert sum(turns) >= 20_002
    assert max(turns) < 700  # of the first turn
    assert sorted(turns)[-3] < 180


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
            client.writer.write(frame(BINARY, size=20_000_000))
            for _ in range(20):
                client.writer.write(bytes(1_000_000))
                await client.writer.drain()  # raises where the server has reset the connection
            received = await client.receive()
            assert (received.code, b"limit" in received.payload) == (1009, True)
            assert await client.is_ended()

    with_echo(body)


# ---- a slow reader


def test_a_client_that_does_not_read_is_not_heard_until_it_reads_and_misses_nothing() -> None:
    size, count = 16_384, 4_000  # more than the system ever buffers: some give a socket 32 MB

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            sending = asyncio.create_task(_send_all(client))
            async with asyncio.timeout(60):
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


@pytest.mark.parametrize("tail", [b"", os.urandom(700_000)], ids=["small as it came", "large as it came"])
def test_nothing_is_kept_of_messages_that_are_too_large_once_they_are_decompressed(tail: bytes) -> None:
    """Not even until circular references are collected: a hundred more of them may have come by then."""
    bomb = frame(TEXT, compressed(b"x" * 1_100_000 + tail), reserved=4)

    async def body(echo: EchoServer) -> None:
        async def throw() -> None:
            async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client:
                client.writer.write(bomb)
                assert (await client.receive()).code == 1009
            await echo.until_closed()

        await throw()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(8):
                await throw()
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            gc.enable()
        assert kept_bytes < 1_000_000

    with_echo(body, gateway={"max_message_bytes": 1_000_000})


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


# ---- messages that are not whole
# A cell of 256 holds one message of MAX_BYTES here.

MANY_CELLS = {"cells": 256, "max_buffered_bytes": 1_048_576}


async def until_held(echo: EchoServer, byte_count: int) -> None:
    await until(lambda: echo.server.buffered.held[IN] == byte_count)


def fragment(data: bytes, **how: Any) -> bytes:
    return frame(TEXT, data, is_final=False, **how)


PARTS: list[tuple[str, bytes, bytes, int]] = [
    ("fragments", fragment(b"x" * 1_000) + frame(CONTINUATION, b"x" * 2_000, is_final=False), frame(CONTINUATION), 3_000),
    ("half a frame", frame(TEXT, b"x" * 3_000)[:2_008], frame(TEXT, b"x" * 3_000)[2_008:], 2_000),
    ("a fragment that inflates", fragment(compressed(b"x" * 3_000), reserved=4), frame(CONTINUATION), 3_000),
]


@pytest.mark.parametrize(("part", "rest", "size"), [each[1:] for each in PARTS], ids=[each[0] for each in PARTS])
def test_bytes_of_a_message_are_held_from_the_first_one_until_it_is_whole(part: bytes, rest: bytes, size: int) -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client({"Sec-WebSocket-Extensions": "permessage-deflate"}) as client:
            client.writer.write(part)
            await until_held(echo, size)
            client.writer.write(rest)
            received = await client.receive()
            assert zlib.decompressobj(-15).decompress(received.payload + b"\x00\x00\xff\xff") == b"x" * 3_000
            await until_held(echo, 0)
            client.writer.write(part)
            await until_held(echo, size)
        await echo.until_closed()
        await until_held(echo, 0)

    with_echo(body, gateway=MANY_CELLS)


def test_at_the_bound_all_of_it_may_be_held() -> None:
    async def body(echo: EchoServer) -> None:
        async with echo.client() as first, echo.client() as second:
            first.writer.write(fragment(b"x" * (MAX_BYTES - 96)))
            second.writer.write(fragment(b"y" * 96))
            await until_held(echo, MAX_BYTES)
            for client, data in ((first, b"x" * (MAX_BYTES - 96)), (second, b"y" * 96)):
                client.send(CONTINUATION)
                assert (await client.receive()).payload == data

    with_echo(body, gateway=MANY_CELLS)


@pytest.mark.parametrize("more", [fragment(b"y" * 97), frame(TEXT, b"y" * 200)[:105]])
def test_past_the_bound_the_one_that_sends_is_told_to_come_later_and_the_others_go_on(more: bytes) -> None:
    """Source: the registry of close codes, 1013 "Try Again Later"."""

    async def body(echo: EchoServer) -> None:
        async with echo.client() as first, echo.client() as second:
            first.writer.write(fragment(b"x" * (MAX_BYTES - 96)))
            await until_held(echo, MAX_BYTES - 96)
            second.writer.write(more)
            received = await second.receive()
            assert (received.code, b"may take 4096 bytes" in received.payload) == (1013, True)
            await until_held(echo, MAX_BYTES - 96)
            first.send(CONTINUATION, b"x" * 96)
            assert (await first.receive()).payload == b"x" * MAX_BYTES
            await until_held(echo, 0)

    with_echo(body, gateway=MANY_CELLS)


def test_a_message_that_does_not_become_whole_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings in between are no part of it."""
    monkeypatch.setattr(message_deadline, "MESSAGE_TIMEOUT_S", 0.3)

    async def body(echo: EchoServer) -> None:
        async with echo.client() as slow, echo.client() as other:
            slow.send(TEXT, b"x", is_final=False)
            slow.send(PING, b"p")
            assert (await slow.receive()).opcode == PONG
            received = await slow.receive()
            assert (received.code, b"did not arrive" in received.payload) == (1008, True)
            other.send(TEXT, b"here")
            assert (await other.receive()).payload == b"here"

    with_echo(body, ping_interval=0)


def test_a_client_that_never_stops_sending_whole_messages_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However its bytes are cut on their way: each message has its own time."""
    monkeypatch.setattr(message_deadline, "MESSAGE_TIMEOUT_S", 0.5)

    async def body(echo: EchoServer) -> None:
        async with echo.client() as client:
            message = frame(TEXT, b"x" * 20)
            client.writer.write(message[:10])
            for _ in range(30):
                await asyncio.sleep(0.05)
                client.writer.write(message[10:] + message[:10])
                assert (await client.receive()).payload == b"x" * 20

    with_echo(body)
