"""Clients that do not go on, or do not read.

Each try opens connections that stay as they are until the last try has ended, or until the gateway ends them.
"""

from __future__ import annotations

import asyncio
import json
import socket

from tests.attacks.arena import Arena
from tests.attacks.attack import CLOSED, HARMLESS, PHOENIX, WEBSOCKET, attack
from tests.attacks.bombs import socket_path
from tests.attacks.speakers import JSON_HEADERS
from tests.doubles.raw_websocket import CONTINUATION, TEXT, frame
from tests.doubles.raw_websocket import PING as PING_FRAME
from tests.end_to_end.raw_http import modern, tool_call

_SOCKETS = (WEBSOCKET, PHOENIX)
_PATIENCE_S = 12.0
"""Longer than the deadline for headers; what is ended by it is ended well before."""


async def until_ended(reader: asyncio.StreamReader) -> str:
    """What comes before the end of a connection that is not used any more."""
    received = b""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while part := await reader.read(65_536):
                received += part
    except TimeoutError:
        return "stays open"
    except ConnectionError:
        pass
    return f"status {received.split(b' ', 2)[1].decode()}" if received.startswith(b"HTTP/1.") else CLOSED


@attack(CLOSED, "status 408", "status 400", tries=4, at_once=50, long_at_once=200)
async def headers_that_never_end(arena: Arena) -> str:
    """Half a request line, or headers without their end."""
    reader, writer = await arena.connect()
    parts = (b"POST /mc", b"POST /mcp HTTP/1.1\r\nHost: x\r\nX-A: ", b"\r\n", b"")
    writer.write(parts[next(arena.numbers) % 4])
    return await until_ended(reader)


@attack(CLOSED, "status 408", "status 400", tries=4, at_once=50, long_at_once=200)
async def headers_that_drip(arena: Arena) -> str:
    """Headers of which a byte comes every 200 ms."""
    reader, writer = await arena.connect()
    writer.write(b"POST /mcp HTTP/1.1\r\nHost: x\r\nX-A: ")

    async def drip() -> None:
        while True:
            await asyncio.sleep(0.2)
            writer.write(b"a")

    dripping = asyncio.create_task(drip())
    try:
        return await until_ended(reader)
    finally:
        dripping.cancel()


@attack(HARMLESS, CLOSED, "status 408", "status 503", "status 413", tries=8, at_once=50, long_tries=200)
async def bodies_that_never_end(arena: Arena) -> str:
    """A body of 4 MB of which the last byte is missing."""
    _, writer = await arena.connect()
    writer.write(f"POST /mcp HTTP/1.1\r\nHost: {arena.host}\r\nContent-Type: application/json\r\n".encode())
    writer.write(b"Content-Length: 4000000\r\n\r\n" + b" " * 3_999_999)
    try:
        async with asyncio.timeout(2):
            await writer.drain()
    except (TimeoutError, ConnectionError):
        pass
    return HARMLESS


@attack(HARMLESS, over=_SOCKETS, tries=8, at_once=50, long_tries=200)
async def messages_that_never_end(arena: Arena, transport: str) -> str:
    """A message of 4 MB in fragments of which the last one is missing."""
    _, writer = await _upgraded(arena, transport)
    writer.write(frame(TEXT, b" " * 1_000_000, is_final=False))
    for _ in range(2):
        writer.write(frame(CONTINUATION, b" " * 1_000_000, is_final=False))
    try:
        async with asyncio.timeout(2):
            await writer.drain()
    except (TimeoutError, ConnectionError):
        pass
    return HARMLESS


async def _upgraded(arena: Arena, transport: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await arena.connect()
    lines = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    lines += [f"Host: {arena.host}", "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="]
    writer.write("\r\n".join([f"GET {socket_path(transport)} HTTP/1.1", *lines, "", ""]).encode())
    async with asyncio.timeout(10):
        await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@attack(HARMLESS, over=_SOCKETS, tries=4, at_once=4, long_tries=100)
async def pings_whose_answers_nobody_reads(arena: Arena, transport: str) -> str:
    """A hundred thousand pings of a client that does not read the answers."""
    _, writer = await _upgraded(arena, transport)
    pings = frame(PING_FRAME, b"x" * 100) * 1_000
    try:
        async with asyncio.timeout(1):
            for _ in range(100):
                writer.write(pings)
                await writer.drain()
    except (TimeoutError, ConnectionError):
        pass
    return HARMLESS


@attack(HARMLESS, CLOSED, tries=10, at_once=50, long_tries=200)
async def streams_that_nobody_reads(arena: Arena) -> str:
    """Event streams of every topic that are not read."""
    reader, writer = await arena.connect()
    writer.write(f"GET /mcp/sse/events/all?last_event_id=0 HTTP/1.1\r\nHost: {arena.host}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        first = await reader.readline()
    assert b" 200 " in first or b" 503 " in first, first
    return HARMLESS


@attack(HARMLESS, tries=8, at_once=50, long_tries=200)
async def answers_that_nobody_reads(arena: Arena) -> str:
    """An answer of 4 MB to a client that does not read it, and leaves in the end."""
    body, headers = modern(tool_call("demo__echo", {"message": "x" * 1_900_000}))
    content = json.dumps(body).encode()
    shown = {"Host": arena.host, **JSON_HEADERS, **headers, "Content-Length": str(len(content))}
    head = "\r\n".join(["POST /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in shown.items()), "", ""])
    deaf = socket.socket()
    arena.held.callback(deaf.close)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    deaf.setblocking(False)
    deaf.bind((arena.address, 0))
    loop = asyncio.get_running_loop()
    await loop.sock_connect(deaf, ("127.0.0.1", arena.gateway.port))
    try:
        async with asyncio.timeout(3):
            await loop.sock_sendall(deaf, head.encode() + content)
    except (TimeoutError, ConnectionError):
        pass
    return HARMLESS
