"""Carries attacks out on a running gateway with an ordinary client beside them, and finds out what they cost whom."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import psutil

from tests.attacks.arena import Arena
from tests.attacks.attack import TALKING, Attack
from tests.attacks.ordinary_client import Watched, ordinary_client
from tests.attacks.speakers import ECHO, read, speaker
from tests.end_to_end.running_gateway import RunningGateway

MEGABYTE: Final = 1_000_000
MOST_MEMORY_BYTES: Final = 30 * MEGABYTE
"""Above idle, after the tries of one attack. Source: ours, the promise of README."""
MOST_DESCRIPTORS: Final = 16
"""More than before: connections to servers that are kept for the next call."""
MOST_SERIES: Final = 120
"""More than before: a reason, a method and a backend that are counted for the first time, in buckets."""
_TRY_TIMEOUT_S = 80.0
_SETTLING_S = 20.0


@attrs.frozen(kw_only=True)
class Cost:
    """What the tries of one attack have cost, more than before it. held: at their end, with all that they leave open."""

    held_bytes: int
    left_bytes: int
    descriptors: int
    series: int

    def problems(self) -> list[str]:
        found = []
        if self.left_bytes > MOST_MEMORY_BYTES:
            found.append(f"{self.left_bytes / MEGABYTE:.0f} MB more memory than before")
        if self.descriptors > MOST_DESCRIPTORS:
            found.append(f"{self.descriptors} more descriptors than before")
        if self.series > MOST_SERIES:
            found.append(f"{self.series} more series of metrics than before")
        return found


@attrs.frozen(kw_only=True)
class Finding:
    """How the tries of one attack over one transport went.

    reads:     {what the attacker read: in how many tries}.
    problems:  of the ordinary client, of the gateway and of what is read; empty for an attack that is held.
    usual_s, meanwhile_s: the 99th percentile of the ordinary client's calls before the attack and during it.
    """

    attack: Attack
    transport: str
    reads: Mapping[str, int]
    problems: tuple[str, ...]
    cost: Cost
    usual_s: float
    meanwhile_s: float


class Place:
    """A gateway that is attacked. servers: doubles behind it, by the name of their backend."""

    def __init__(self, gateway: RunningGateway, watched: Watched, servers: Mapping[str, Any]) -> None:
        self.gateway = gateway
        self._watched = watched
        self._servers = servers
        self._addresses = (f"127.0.{third}.{fourth}" for third in range(1, 255) for fourth in range(1, 255))

    def arena(self) -> Arena:
        """One with an address of its own."""
        return Arena(self.gateway, next(self._addresses), self._servers)

    def warm_up(self, transports: Sequence[str]) -> None:
        """Meet these transports, so that the first attack does not pay for what is made once."""

        async def meet_all() -> None:
            async with self.arena() as arena:
                for _ in range(3):
                    for transport in transports:
                        async with speaker(arena, transport) as client:
                            assert read(await client.ask("tools/call", ECHO)) == "answered"
                            await client.ask("tools/list")

        asyncio.run(meet_all())

    def carry_out(self, attack: Attack, transport: str, tries: int | None = None, usual_for_s: float = 0.0) -> Finding:
        """usual_for_s: how long the ordinary client is watched before the attack."""
        count = attack.tries if tries is None else tries
        memory, descriptors, series = memory_bytes(self.gateway), descriptor_count(self.gateway), len(self.gateway.metrics())
        restarts = self.gateway.restart_count()
        before_s = time.monotonic()
        time.sleep(usual_for_s)
        began_s = time.monotonic()
        reads, problems, held = asyncio.run(self._try(attack, transport, count))
        over_s = time.monotonic()
        self._watched.wait_for_rounds(over_s, 2)
        problems += self._unexpected(attack, reads)
        problems += [f"an ordinary client: {each.problem}" for each in self._watched.rounds(began_s) if each.problem]
        if self.gateway.restart_count() != restarts:
            problems.append("something was started again")
        cost = self._settled(memory, descriptors, series, held)
        return Finding(
            attack=attack,
            transport=transport,
            reads=dict(reads),
            problems=tuple(dict.fromkeys(problems + cost.problems())),
            cost=cost,
            usual_s=percentile(self._took_s(before_s, began_s)),
            meanwhile_s=percentile(self._took_s(began_s, over_s)),
        )

    def assert_unharmed(self, since_s: float) -> None:
        """That the ordinary client has had every answer since that time, and that nothing was started again."""
        self._watched.wait_for_rounds(time.monotonic(), 2)
        assert [each.problem for each in self._watched.rounds(since_s) if each.problem] == []
        assert self.gateway.restart_count() == 0

    def _took_s(self, from_s: float, to_s: float) -> list[float]:
        return [took_s for each in self._watched.rounds(from_s, to_s) for took_s in each.took_s]

    async def _try(self, attack: Attack, transport: str, count: int) -> tuple[Counter[str], list[str], int]:
        """(what was read, what went wrong, memory at the end, with all that is held open)"""
        reads: Counter[str] = Counter()
        problems: list[str] = []

        async def once(arena: Arena) -> None:
            try:
                async with asyncio.timeout(_TRY_TIMEOUT_S):
                    reads[await attack.attempt(arena, transport)] += 1
            except Exception as problem:
                problems.append(f"{type(problem).__name__}: {str(problem)[:300]}")

        async with self.arena() as arena:
            for some in _portions(count, attack.at_once):
                await asyncio.gather(*(once(arena) for _ in range(some)))
            held = await asyncio.to_thread(memory_bytes, self.gateway)
        return reads, problems, held

    def _unexpected(self, attack: Attack, reads: Mapping[str, int]) -> Iterator[str]:
        for what in reads:
            if what not in attack.reads:
                yield f"reads {what!r} instead of {' or '.join(attack.reads)}"

    def _settled(self, memory: int, descriptors: int, series: int, held: int) -> Cost:
        """The cost, once it is what may be, or when it has not become that in time."""
        deadline_s = time.monotonic() + _SETTLING_S
        while True:
            cost = Cost(
                held_bytes=held - memory,
                left_bytes=memory_bytes(self.gateway) - memory,
                descriptors=descriptor_count(self.gateway) - descriptors,
                series=len(self.gateway.metrics()) - series,
            )
            if not cost.problems() or time.monotonic() > deadline_s:
                return cost
            time.sleep(0.2)


@contextmanager
def place(
    gateway: RunningGateway, directory: Path, servers: Mapping[str, Any] | None = None, transports: Sequence[str] = TALKING
) -> Iterator[Place]:
    """A gateway with an ordinary client for the length of the `with` block. transports: that everybody may use."""
    with ordinary_client(gateway.endpoint(), directory) as watched:
        found = Place(gateway, watched, servers or {})
        found.warm_up(transports)
        yield found


def memory_bytes(gateway: RunningGateway) -> int:
    """PSS of all its processes."""
    total = 0
    for each in gateway.processes():
        with suppress(psutil.Error):
            total += each.memory_full_info().pss
    return total


def descriptor_count(gateway: RunningGateway) -> int:
    total = 0
    for each in gateway.processes():
        with suppress(psutil.Error):
            total += each.num_fds()
    return total


def thread_count(gateway: RunningGateway) -> int:
    total = 0
    for each in gateway.processes():
        with suppress(psutil.Error):
            total += each.num_threads()
    return total


def percentile(values: list[float], share: float = 0.99) -> float:
    """0 of none."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def _portions(count: int, most: int) -> Iterator[int]:
    while count > 0:
        yield min(count, most)
        count -= most
