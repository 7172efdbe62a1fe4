"""A link between two places that can be cut without a word, and made slow; and a balancer that knows of TCP alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from .namespaces import LOOPBACK

_CHUNK_BYTES: Final = 65_536
_CONNECT_S: Final = 2.0


class Relay:
    """Takes connections at a port of its own and carries each to the next of its targets, hosts and ports, that takes it.

    is_cut:  what comes is kept, and goes on its way when the link is whole again: as where packets are dropped and sent again.
    delay_s: for each piece, one way.
    """

    def __init__(self, targets: Sequence[tuple[str, int]], host: str = LOOPBACK) -> None:
        self._targets = list(targets)
        self._host = host
        self._turn = 0
        self._whole = asyncio.Event()
        self._whole.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.delay_s = 0.0
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()

    @property
    def is_cut(self) -> bool:
        return not self._whole.is_set()

    @is_cut.setter
    def is_cut(self, is_cut: bool) -> None:
        (self._whole.clear if is_cut else self._whole.set)()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(asyncio.CancelledError):  # the relay closes
            await self._whole.wait()
            await self._carry(reader, writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if (there := await self._connect()) is not None:
                there_reader, there_writer = there
                try:
                    ways = [self._copy(reader, there_writer), self._copy(there_reader, writer)]
                    copying = [asyncio.ensure_future(way) for way in ways]
                    await asyncio.wait(copying, return_when=asyncio.FIRST_COMPLETED)
                    for each in copying:
                        each.cancel()
                finally:
                    there_writer.close()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._targets:
            self._turn += 1
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_S):
                    return await asyncio.open_connection(*self._targets[self._turn % len(self._targets)])
        return None

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
