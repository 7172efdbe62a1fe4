"""Clients that do harm: they cut in the middle, send byte by byte, connect and say nothing; from an address of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Final

from .clients import modern_meta

_ADDRESS: Final = ("127.0.0.66", 0)
AT_ONCE: Final = 20
_BYTE_S: Final = 0.1


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=_ADDRESS)


def _call(port: int) -> bytes:
    params = {"name": "demo__slow", "arguments": {"seconds": 0.5}, "_meta": modern_meta()}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
        "Mcp-Name: demo__slow\r\n\r\n"
    )
    return head.encode() + body


async def cut(port: int) -> None:
    """Send a call, half of one, or all but its end, and go."""
    call = _call(port)
    for size in (len(call), len(call) // 2, len(call) - 1):
        _, writer = await _connect(port)
        writer.write(call[:size])
        await asyncio.sleep(0.05)
        writer.transport.abort()


async def drip(port: int) -> None:
    """Slow loris: one byte of a request now and then."""
    _, writer = await _connect(port)
    try:
        for byte in _call(port):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(_BYTE_S)
    finally:
        writer.transport.abort()


async def say_nothing(port: int) -> None:
    """Connect, send half a head, and stay."""
    _, writer = await _connect(port)
    try:
        writer.write(b"POST /mcp HTTP/1.1\r\nHost")
        await asyncio.sleep(60)
    finally:
        writer.transport.abort()


RUDE: Final[dict[str, Callable[[int], Awaitable[None]]]] = {
    "cutting clients": cut,
    "slow loris": drip,
    "half-open sockets": say_nothing,
}
"""{kind of fault: what each of its clients does, again and again}"""


async def be_rude(kind: str, port: int) -> None:
    """AT_ONCE of them, until cancelled."""

    async def again() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await RUDE[kind](port)
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(again())
