"""Between a node and the cluster's log, on an event loop: appends what the node publishes, reads what there is for it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from mcp_gateway.actors.messages.event_log import StoredEvent
from mcp_gateway.actors.storage.event_spool import SpooledEvent
from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

from .engine import Engine, EngineAway, LogPage
from .stream_order import read_entry, sealed_entry

_AGAIN_S: Final = 1.0
_LOOK_AGAIN_S: Final = 5.0
"""Where nobody has said that there is news: a hint may be lost."""
_BEHIND_S: Final = 0.1
"""Until a replica of the log that has not got all yet is read again."""
_NONCE_BYTES: Final = 12

_logger = logging.getLogger(__name__)


class LogFollower:
    """Reads the log by sequence, and appends in order, each as often as it takes: an append may be said again.

    connect: makes the connection to the engine.
    last_id: of the newest event that the node has.
    on_read: takes the events of each page, and the places, (source, number), of all its entries. Where the end is reached for the
             first time, and where the log begins anew beyond what there is: neither of them, but the id after which it goes on.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Engine]],
        cipher: KeyRing,
        last_id: int,
        on_read: Callable[[tuple[StoredEvent, ...], tuple[tuple[str, int], ...], int], None],
    ) -> None:
        self._connect = connect
        self._cipher = cipher
        self._last_id = last_id
        self._on_read = on_read
        self._waiting: deque[SpooledEvent] = deque()
        self._has_waiting = asyncio.Event()
        self._said = ""

    def append(self, events: Iterable[SpooledEvent]) -> None:
        """Have them appended as soon as that can be."""
        self._waiting.extend(events)
        self._has_waiting.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                engine = await self._connect()
                break
            except EngineAway as error:
                self._say(f"events wait: the log of the cluster cannot be reached: {error}")
                await asyncio.sleep(_AGAIN_S)
        try:
            await asyncio.gather(self._append_all(engine), self._read_all(engine))
        finally:
            await engine.close()

    async def _append_all(self, engine: Engine) -> None:
        while True:
            while not self._waiting:
                self._has_waiting.clear()
                await self._has_waiting.wait()
            first = self._waiting[0]
            entry = sealed_entry(self._cipher, os.urandom(_NONCE_BYTES), first.spool, first.number, first.event)
            try:
                await engine.append(first.spool, first.number, entry)
            except EngineAway as error:
                self._say(f"events wait: the log of the cluster takes none: {error}")
                await asyncio.sleep(_AGAIN_S)
                continue
            self._said = ""
            self._waiting.popleft()

    async def _read_all(self, engine: Engine) -> None:
        has_reached_end = False
        while True:
            try:
                page = await engine.read_log(self._last_id)
            except EngineAway:
                await asyncio.sleep(_AGAIN_S)
                continue
            if page.entries:
                self._take(page)
                continue
            is_empty = page.first_sequence > page.last_sequence
            if page.last_sequence > self._last_id and not is_empty:
                await asyncio.sleep(_BEHIND_S)
                continue
            if not has_reached_end or page.last_sequence > self._last_id:
                has_reached_end = True
                self._last_id = max(self._last_id, page.last_sequence)
                self._on_read((), (), self._last_id)
            await engine.log_news(self._last_id, _LOOK_AGAIN_S)

    def _take(self, page: LogPage) -> None:
        read = [read_entry(self._cipher, entry) for entry in page.entries]
        if None in read:
            self._say("the log of the cluster has entries that none of its nodes has made: they are left out")
        self._last_id = page.entries[-1].sequence
        events = tuple(event for event in read if event is not None)
        self._on_read(events, tuple((entry.source, entry.number) for entry in page.entries), 0)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            _logger.warning("%s", text)
