"""What clients have used of their day at each node, told to all nodes of a cluster: no request waits for it.

Each node says how much it has counted itself, and only it raises that: whatever is lost, comes twice or late, all come to the
same sum, as a grow-only counter does. What is new is said every second; all of it from time to time, and when nodes have come or
gone, for those who have missed some. A node that has lost its file counts anew: that is added again once it is more than before.

Source: grow-only counters; Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data Types", 3.1.1.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag

from mcp_gateway.transports.ports.daily_quota import day_of
from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

from .engine import Engine, EngineAway
from .shared_limits import LimitMember, Members

REPORT_S: Final = 1.0
ALL_S: Final = 30.0
MOST_CLIENTS: Final = 5_000
"""In one message: some 150 kB."""

_SUBJECT: Final = "quotas"
_KIND: Final = b"quotas counted"
_NONCE_BYTES: Final = 12


class _Counted(msgspec.Struct, frozen=True, array_like=True):
    """counts: {client: requests of this day that the node has counted}."""

    node: str
    day: int
    counts: dict[str, int]


_decode = msgspec.msgpack.Decoder(_Counted).decode


class CountedDays(Protocol):
    """The file that the cells of this node add to; see `quota_file.QuotaFile`."""

    def own(self, day: int, after: int) -> tuple[int, dict[str, int]]: ...

    def take(self, day: int, node: str, counts: Mapping[str, int]) -> None: ...

    def close(self) -> None: ...


class SharedQuotas:
    """This node's part. The file is used by a thread of its own, which waits for it while cells write, and closes it in the end.

    What was heard and waits for that thread is one count for each client and node, as in the file, however often it is said.
    """

    def __init__(self, engine: Engine, cipher: KeyRing, member: LimitMember, file: CountedDays) -> None:
        self._engine = engine
        self._cipher = cipher
        self._member = member
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quotas")
        self._said: tuple[int, int] = (0, 0)  # (day, revision of the file) up to which others have been told
        self._told: Members = ()
        self._all_at_s = 0.0
        self._heard: dict[tuple[int, str], dict[str, int]] = {}  # {(day, node): counts} that the file does not have yet
        self._has_heard = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            stop = await self._subscribed()
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._tell_often())
                    tasks.create_task(self._keep_heard())
            finally:
                await stop()
        finally:
            self._thread.submit(self._file.close)  # after what it is doing
            self._thread.shutdown(wait=False)

    async def _subscribed(self) -> Callable[[], Awaitable[None]]:
        while True:
            try:
                return await self._engine.subscribe(_SUBJECT, self._take)
            except EngineAway:
                await asyncio.sleep(REPORT_S)

    # ---- what this node says

    async def _tell_often(self) -> None:
        while True:
            try:
                await self._tell()
            except EngineAway:
                self._all_at_s = 0.0  # who knows what has come to whom
            await asyncio.sleep(REPORT_S)

    async def _tell(self) -> None:
        """Raises: EngineAway."""
        members, now_s = self._member.members(), time.monotonic()
        if not members:
            return
        day, (said_day, after) = day_of(time.time()), self._said
        is_all = day != said_day or members != self._told or now_s >= self._all_at_s
        loop = asyncio.get_running_loop()
        revision, counts = await loop.run_in_executor(self._thread, self._file.own, day, 0 if is_all else after)
        for page in _pages(counts):
            await self._engine.publish(_SUBJECT, self._seal(_Counted(self._member.node, day, page)))
        self._said, self._told = (day, revision), members
        if is_all:
            self._all_at_s = now_s + ALL_S

    def _seal(self, counted: _Counted) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(counted), _KIND)

    # ---- what others say

    def _take(self, packet: bytes) -> None:
        try:
            counted = _decode(self._cipher.decrypt(packet[:_NONCE_BYTES], packet[_NONCE_BYTES:], _KIND))
        except (InvalidTag, msgspec.DecodeError, ValueError):
            return
        if counted.node != self._member.node and counted.day == day_of(time.time()):
            heard = self._heard.setdefault((counted.day, counted.node), {})
            for client, count in counted.counts.items():
                heard[client] = max(count, heard.get(client, 0))
            self._has_heard.set()

    async def _keep_heard(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._has_heard.wait()
            self._has_heard.clear()
            while self._heard:
                day, node = next(iter(self._heard))  # who has waited longest
                for page in _pages(self._heard.pop((day, node))):  # cells have their turns between two of them
                    await loop.run_in_executor(self._thread, self._file.take, day, node, page)


def _pages(counts: Mapping[str, int]) -> list[dict[str, int]]:
    rows = list(counts.items())
    return [dict(rows[start : start + MOST_CLIENTS]) for start in range(0, len(rows), MOST_CLIENTS)]
