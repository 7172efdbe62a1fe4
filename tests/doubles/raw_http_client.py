"""One TCP connection to a cell and HTTP on it as bytes, for what HTTP clients hide: framing, order, how a connection ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from tests.doubles.patience import patience
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

MAX_BYTES = 2_000


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["error"]["data"]["reason"])

    @property
    def text(self) -> str:
        return str(json.loads(self.body)["error"]["message"])


class RawClient:
    """One TCP connection, and bytes on it. address: of the client."""

    def __init__(self, cell: RunningCell, address: str = "127.0.0.1") -> None:
        self.port = cell.settings.gateway.port
        self._address = address

    async def __aenter__(self) -> RawClient:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self._address, 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, method: str, path: str, body: bytes = b"", length: int | None = None, **headers: str) -> Answer:
        self.start(method, path, len(body) if length is None else length, **headers)
        self.writer.write(body)
        return await self.answer(is_head=method == "HEAD")

    def start(self, method: str, path: str, length: int | None, **headers: str) -> None:
        headers = {"Host": f"127.0.0.1:{self.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
        framing = ["Transfer-Encoding: chunked"] if length is None else [f"Content-Length: {length}"]
        lines = [f"{method} {path} HTTP/1.1", *framing, *(f"{name}: {value}" for name, value in headers.items() if value)]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def answer(self, *, is_head: bool = False) -> Answer:
        async with patience():
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = 0 if is_head else int(headers.get("content-length", 0))
            return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def is_closed(self) -> bool:
        """Whether the server closes the connection now."""
        async with asyncio.timeout(5):
            return await self.reader.read(1) == b""


def on_cell(body: Callable[[RunningCell], Awaitable[None]], **tables: dict[str, Any]) -> None:
    settings = cell_settings(**{**tables, "gateway": {"max_message_bytes": MAX_BYTES, **tables.get("gateway", {})}})

    async def run() -> None:
        async with running_cell(settings) as cell, patience():
            await body(cell)

    asyncio.run(run())


PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
INITIALIZE = json.dumps(
    {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "n", "version": "1"}},
    }
).encode()  # fmt: skip
