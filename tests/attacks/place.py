"""Carries attacks out on a running gateway with an ordinary client beside them, and finds out what they cost whom."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import psutil

from tests.attacks.arena import Arena
from tests.attacks.attack import TALKING, Attack, Effort
from tests.attacks.finding import Cost, Finding
from tests.attacks.ordinary_client import Watched, ordinary_client
from tests.attacks.speakers import ECHO, read, speaker
from tests.attacks.strangers import Strangers
from tests.end_to_end.running_gateway import RunningGateway

_TRY_TIMEOUT_S = 80.0
_SETTLING_S = 20.0
_FIRST_WATCH_S = 5.0
_WATCH_S = 2.0
_USUAL_FOR_S = 60.0
"""How long the usual time of a call is believed: a machine has moods."""
_USUAL_CALLS = 300
_SITTINGS = 3
"""What has seemed to make others wait is tried so often, and believed where it did least: harm repeats itself."""
_LONG_SITTING_S = 30.0


class Place:
    """A gateway that is attacked. servers: doubles behind it, by the name of their backend."""

    def __init__(self, gateway: RunningGateway, watched: Watched, servers: Mapping[str, Any]) -> None:
        self.gateway = gateway
        self._watched = watched
        self._servers = servers
        self._usual_s: deque[float] = deque(maxlen=_USUAL_CALLS)
        self._usual_until_s = 0.0
        self._addresses = (f"127.0.{third}.{fourth}" for third in range(1, 255) for fourth in range(1, 255))

    def arena(self) -> Arena:
        """One with an address of its own."""
        return Arena(self.gateway, next(self._addresses), self._servers)

    def warm_up(self, transports: Sequence[str]) -> None:
        """Meet these transports, so that the first attack does not pay for what is made once.

        All at once: a list waits for each server that gives none, for as long as it may.
        """

        async def meet(arena: Arena, transport: str) -> None:
            async with speaker(arena, transport) as client:
                assert read(await client.ask("tools/call", ECHO)) == "answered"
                await client.ask("tools/list")

        async def meet_all() -> None:
            async with self.arena() as arena:
                for _ in range(3):
                    await asyncio.gather(*(meet(arena, transport) for transport in transports))

        asyncio.run(meet_all())

    def carry_out(self, attack: Attack, transport: str, effort: Effort | None = None) -> Finding:
        """effort: as in the short form, unless told otherwise."""
        effort = effort or attack.short
        memory, descriptors, series = memory_bytes(self.gateway), descriptor_count(self.gateway), len(self.gateway.metrics())
        restarts = self.gateway.restart_count()
        strangers, cpu_s = Strangers(), processor_time_s(self.gateway)
        began_s = time.monotonic()
        reads, problems, held = asyncio.run(self._try(attack, transport, effort))
        over_s = time.monotonic()
        others, cpu_s = strangers.cores(), processor_time_s(self.gateway) - cpu_s
        self._watched.wait_for_rounds(over_s, 2)
        problems += self._unexpected(attack, reads)
        problems += [f"an ordinary client: {each.problem}" for each in self._watched.rounds(began_s) if each.problem]
        if self.gateway.restart_count() != restarts:
            problems.append("something was started again")
        cost = self._settled(memory, descriptors, series, held)
        return Finding(
            form=self.gateway.form,
            attack=attack,
            transport=transport,
            tries=effort.tries,
            reads=dict(reads),
            problems=tuple(dict.fromkeys(problems + cost.problems())),
            cost=cost,
            usual_s=0.0,
            meanwhile_s=percentile(self._watched.took_s(began_s, over_s)),
            took_s=over_s - began_s,
            cpu_s=cpu_s,
            strangers=others,
        )

    def measure(self, attack: Attack, transport: str, effort: Effort) -> Finding:
        """Carry it out, and compare how long others waited with how long they do before or after it, whichever is worse."""
        best: Finding | None = None
        for _ in range(_SITTINGS):
            self._refresh_usual()
            usual_s = percentile(list(self._usual_s))
            finding = attrs.evolve(self.carry_out(attack, transport, effort), usual_s=usual_s)
            if finding.harm:
                after_s = percentile(self._watch(_WATCH_S))
                finding = attrs.evolve(finding, usual_s=max(usual_s, after_s))
            if best is None or finding.problems or finding.slower < best.slower:
                best = finding
            if finding.problems or not finding.harm or finding.took_s > _LONG_SITTING_S:
                break
        assert best is not None
        return best

    def _refresh_usual(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._usual_until_s:
            self._usual_s.extend(self._watch(_WATCH_S if self._usual_s else _FIRST_WATCH_S))
            self._usual_until_s = time.monotonic() + _USUAL_FOR_S

    def _watch(self, for_s: float) -> list[float]:
        """How long the ordinary client's calls take while nothing is attacked."""
        began_s = time.monotonic()
        time.sleep(for_s)
        return self._watched.took_s(began_s, began_s + for_s)

    def assert_unharmed(self, since_s: float) -> None:
        """That the ordinary client has had every answer since that time, and that nothing was started again."""
        self._watched.wait_for_rounds(time.monotonic(), 2)
        assert [each.problem for each in self._watched.rounds(since_s) if each.problem] == []
        assert self.gateway.restart_count() == 0

    async def _try(self, attack: Attack, transport: str, effort: Effort) -> tuple[Counter[str], list[str], int]:
        """(what was read, what went wrong, memory at the end, with all that is held open)"""
        reads: Counter[str] = Counter()
        problems: list[str] = []
        room = asyncio.Semaphore(effort.at_once)

        async def once(arena: Arena) -> None:
            try:
                async with room, asyncio.timeout(_TRY_TIMEOUT_S):
                    reads[await attack.attempt(arena, transport)] += 1
            except Exception as problem:
                where = traceback.extract_tb(problem.__traceback__)[-1].line
                problems.append(f"{type(problem).__name__}: {str(problem)[:300] or where}")

        async with self.arena() as arena:
            async with asyncio.TaskGroup() as tries:
                for _ in range(effort.tries):
                    tries.create_task(once(arena))
                    await asyncio.sleep(effort.pause_s)
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


def processor_time_s(gateway: RunningGateway) -> float:
    """Of all its processes, and of those that have ended."""
    total = 0.0
    for each in gateway.processes():
        with suppress(psutil.Error):
            total += sum(each.cpu_times()[:4])
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
