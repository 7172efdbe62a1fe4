"""The engine of members that live in one process: for tests, simulations, and whatever is alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs

from .engine import LOG_PAGE, MAX_PAYLOAD_BYTES, EngineAway, Entry, LogEntry, LogPage, NoResponders, WrongRevision

_logger = logging.getLogger(__name__)


@attrs.define(eq=False)
class MemoryHub:
    """What all members share: keys, log, and who listens. retention: entries that the log keeps.

    cut_off: members that cannot reach it, for tests of what then happens.
    """

    retention: int = 10_000
    cut_off: set[MemoryEngine] = attrs.field(factory=set)
    servers: dict[str, tuple[MemoryEngine, Callable[[bytes], Awaitable[bytes]]]] = attrs.field(factory=dict)
    subscribers: dict[str, list[tuple[MemoryEngine, Callable[[bytes], None]]]] = attrs.field(factory=dict)
    revision: int = 0
    keys: dict[str, tuple[Entry, asyncio.TimerHandle | None]] = attrs.field(factory=dict)
    watchers: list[tuple[str, asyncio.Queue[Entry]]] = attrs.field(factory=list)
    log: list[LogEntry] = attrs.field(factory=list)
    last_sequence: int = 0
    last_numbers: dict[str, int] = attrs.field(factory=dict)
    has_news: asyncio.Event = attrs.field(factory=asyncio.Event)

    def put(self, key: str, value: bytes | None, ttl_s: float | None) -> int:
        _, timer = self.keys.pop(key, (None, None))
        if timer is not None:
            timer.cancel()
        self.revision += 1
        entry = Entry(key, self.revision, value)
        if value is not None:
            loop = asyncio.get_running_loop()
            self.keys[key] = (entry, None if ttl_s is None else loop.call_later(ttl_s, self.put, key, None, None))
        for prefix, queue in self.watchers:
            if key.startswith(prefix):
                queue.put_nowait(entry)
        return self.revision

    def append(self, source: str, number: int, data: bytes) -> None:
        if number <= self.last_numbers.get(source, 0):
            return
        self.last_numbers[source] = number
        self.last_sequence += 1
        self.log.append(LogEntry(self.last_sequence, source, number, data))
        del self.log[: -self.retention]
        self.has_news.set()
        self.has_news = asyncio.Event()


class MemoryEngine:
    """One member at a hub. Implements `engine.Engine`."""

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub

    @property
    def is_connected(self) -> bool:
        return self not in self._hub.cut_off

    async def _reach(self, payload: bytes = b"") -> MemoryHub:
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"{len(payload)} bytes are more than the {MAX_PAYLOAD_BYTES} of a message")
        await asyncio.sleep(0)  # as any other engine does: nothing happens in the caller's own turn
        if not self.is_connected:
            raise EngineAway("cut off")
        return self._hub

    # ---- messages

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        hub = await self._reach(payload)
        server, answer = hub.servers.get(subject, (None, None))
        if server is None or answer is None or not server.is_connected:
            raise NoResponders(subject)
        try:
            async with asyncio.timeout(timeout_s):  # `wait_for` may take no notice of a task that is cancelled
                return await answer(payload)
        except TimeoutError:
            raise EngineAway(f"{subject} has not answered") from None
        except Exception:
            _logger.exception("a request of %s was not answered", subject)
            raise EngineAway(f"{subject} has not answered") from None

    async def serve(self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]) -> Callable[[], Awaitable[None]]:
        hub = await self._reach()
        hub.servers[subject] = (self, answer)

        async def stop() -> None:
            hub.servers.pop(subject, None)

        return stop

    async def publish(self, subject: str, payload: bytes) -> None:
        hub = await self._reach(payload)
        for member, take in hub.subscribers.get(subject, ()):
            if member.is_connected:
                asyncio.get_running_loop().call_soon(take, payload)

    async def subscribe(self, subject: str, take: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        hub = await self._reach()
        subscriber = (self, take)
        hub.subscribers.setdefault(subject, []).append(subscriber)

        async def stop() -> None:
            hub.subscribers[subject].remove(subscriber)

        return stop

    # ---- keys

    async def get(self, key: str) -> Entry | None:
        hub = await self._reach()
        return hub.keys.get(key, (None, None))[0]

    async def create(self, key: str, value: bytes, ttl_s: int | None = None) -> int:
        hub = await self._reach(value)
        if key in hub.keys:
            raise WrongRevision(key)
        return hub.put(key, value, ttl_s)

    async def update(self, key: str, value: bytes, revision: int, ttl_s: int | None = None, is_news: bool = True) -> int:
        hub = await self._reach(value)
        self._check(key, revision)
        return hub.put(key, value, ttl_s)

    async def delete(self, key: str, revision: int) -> None:
        hub = await self._reach()
        self._check(key, revision)
        hub.put(key, None, None)

    def _check(self, key: str, revision: int) -> None:
        found, _ = self._hub.keys.get(key, (None, None))
        if found is None or found.revision != revision:
            raise WrongRevision(key)

    async def watch(self, prefix: str) -> AsyncIterator[tuple[Entry, ...]]:
        hub = self._hub
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        watcher = (prefix, queue)
        while not self.is_connected:
            await asyncio.sleep(0.01)
        hub.watchers.append(watcher)
        try:
            yield tuple(entry for key, (entry, _) in sorted(hub.keys.items()) if key.startswith(prefix))
            while True:
                entry = await queue.get()
                while not self.is_connected:
                    await asyncio.sleep(0.01)
                yield (entry,)
        finally:
            hub.watchers.remove(watcher)

    # ---- the log

    async def append(self, source: str, number: int, data: bytes) -> None:
        hub = await self._reach(data)
        hub.append(source, number, data)

    async def read_log(self, after: int) -> LogPage:
        hub = await self._reach()
        first = hub.log[0].sequence if hub.log else hub.last_sequence + 1
        found = hub.log[max(after + 1 - first, 0) :][:LOG_PAGE]
        return LogPage(tuple(found), first, hub.last_sequence)

    async def log_news(self, after: int, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                while self._hub.last_sequence <= after or not self.is_connected:
                    await self._hub.has_news.wait()
        except TimeoutError:
            return

    async def close(self) -> None:
        self._hub.cut_off.add(self)
