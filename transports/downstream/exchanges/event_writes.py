"""Joins events that come together into few writes to their client, and tells when its socket has taken them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcp_gateway.transports.ports.loop_tasks import retrieve


class EventWrites:
    """The events of one stream. None waits for another: the first is written at once, and so is all while the socket is full.

    After a write that the socket took whole, the loop says so in its next turn. What comes until then is written together: a
    burst of a server's makes two writes rather than one for each event.

    write:    as `Incoming.write`.
    on_taken: called with how many events the socket has taken, unless the stream has been finished or its client has gone.
    """

    __slots__ = ("_held", "_on_taken", "_write", "_written")

    def __init__(self, write: Callable[[bytes], asyncio.Future[None]], on_taken: Callable[[int], None]) -> None:
        self._write = write
        self._on_taken = on_taken
        self._written: asyncio.Future[None] | None = None  # the latest write, until its end has been told
        self._held: list[bytes] = []

    def add(self, event: bytes) -> None:
        self._held.append(event)
        if self._written is None or not self._written.done():
            self._write_held()

    def finish(self) -> None:
        """Write what is held; nothing follows."""
        if self._held:
            self._write(b"".join(self._held)).add_done_callback(retrieve)
            self._held.clear()

    def _write_held(self) -> None:
        event_count = len(self._held)
        self._written = self._write(b"".join(self._held))
        self._held.clear()
        self._written.add_done_callback(lambda written: self._taken(written, event_count))

    def _taken(self, written: asyncio.Future[None], event_count: int) -> None:
        if written.cancelled() or written.exception() is not None:
            return
        if written is self._written:
            self._written = None
            if self._held:
                self._write_held()
        self._on_taken(event_count)
