"""A client of a topic stream, as bytes on a socket: reads what and when the test tells it to."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs


@attrs.frozen
class Told:
    """One event as the client saw it. event_id: as text, None where the event carried none."""

    name: str
    event_id: str | None
    data: Any

    @property
    def topic(self) -> str:
        return str(self.data["event_type"])


class TopicReader:
    """status, headers (lower-case names): of the answer. told: what was read so far."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.told: list[Told] = []

    async def start(self, path: str, headers: dict[str, str], method: str, version: str) -> None:
        lines = [f"{method} {path} HTTP/{version}", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}

    async def body(self) -> Any:
        """The JSON of an answer that is no stream."""
        return json.loads(await self._reader.readexactly(int(self.headers["content-length"])))

    async def reason(self) -> str:
        return str((await self.body())["error"]["data"]["reason"])

    async def next(self, *names: str, timeout_s: float = 10.0) -> Told:
        """The next event with one of these names; any other than a heartbeat where none is given."""
        async with asyncio.timeout(timeout_s):
            while True:
                told = await self._next()
                assert told is not None, "the stream has ended"
                if told.name in names or (not names and told.name != "heartbeat"):
                    return told

    async def events(self, count: int, timeout_s: float = 20.0) -> list[Told]:
        """The next events of the topic."""
        async with asyncio.timeout(timeout_s):
            return [await self.next("vsm_event", timeout_s=timeout_s) for _ in range(count)]

    async def ends(self, timeout_s: float = 10.0) -> bool:
        """Read to the end; whether it is a clean one, as HTTP tells it."""
        async with asyncio.timeout(timeout_s):
            while await self._next() is not None:
                pass
        return self._is_complete

    _is_complete = False

    async def _next(self) -> Told | None:
        while b"\n\n" not in self._rest:
            chunk = await self._chunk()
            if not chunk:
                return None
            self._rest += chunk
        block, _, self._rest = self._rest.partition(b"\n\n")
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        told = Told(fields.get("event", "message"), fields.get("id"), json.loads(fields["data"]))
        self.told.append(told)
        return told

    async def _chunk(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return await self._reader.read(65_536)
        line = await self._reader.readline()
        size = int(line, 16) if line else 0
        content = await self._reader.readexactly(size) if size else b""
        if line:
            await self._reader.readline()
            self._is_complete = size == 0
        return content

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def read_topic(
    port: int,
    topic: str,
    *,
    last_event_id: int | str | None = None,
    receive_buffer: int | None = None,
    method: str = "GET",
    version: str = "1.1",
    **headers: str,
) -> AsyncIterator[TopicReader]:
    """Connect for the length of the `async with` block. topic: as in the path, a query may follow.

    receive_buffer: of the socket and of the reader, so that a client that does not read is felt soon.
    """
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 1 << 20)
    topic_reader = TopicReader(reader, writer)
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    if last_event_id is not None:
        shown["Last-Event-ID"] = str(last_event_id)
    try:
        await topic_reader.start(f"/mcp/sse/events/{topic}", shown, method, version)
        yield topic_reader
    finally:
        writer.close()
