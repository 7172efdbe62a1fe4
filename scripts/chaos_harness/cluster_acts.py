"""Faults of a cluster: nodes die and stop, NATS servers die, links are cut and slow."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from .cluster_under_test import ClusterUnderTest
from .fault_acts import Act
from .gateway_under_test import GatewayFailed
from .history import Acknowledged, FaultBegan, FaultEnded, Following, Recovered, Seen
from .nats_servers import NATS
from .recorder import Recorder
from .schedule import Planned

SLOW_S: Final = 0.05
_POLL_S: Final = 0.2
_SILENCE_S: Final = 5.0


class ClusterActs:
    """Carries out what was planned, each fault as a task of its own; see `FaultActs`."""

    def __init__(self, cluster: ClusterUnderTest, recorder: Recorder) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._acts: dict[str, Callable[[str], Act]] = {
            "kill node": self._kill_node,
            "stop node": self._stop_node,
            "kill nats": self._kill_nats,
            "kill most nats": self._kill_most_nats,
            "cut off node": self._cut_off,
            "slow links": self._slow_links,
        }
        self._busy: dict[str, asyncio.Lock] = {}

    async def carry_out(self, planned: Planned) -> None:
        """From its beginning until all is well again, or the run is over. Two faults of one thing meet it one after the other."""
        what = "nats" if "nats" in planned.kind.name else planned.target
        async with self._busy.setdefault(what, asyncio.Lock()):
            self._recorder.add(
                FaultBegan(fault_id=planned.fault_id, fault=planned.kind.name, target=planned.target, at_s=self._recorder.now_s())
            )
            async with self._acts[planned.kind.name](planned.target):
                await asyncio.sleep(planned.lasts_s)
            ended_s = self._recorder.now_s()
            self._recorder.add(FaultEnded(fault_id=planned.fault_id, at_s=ended_s))
            # In a thread: it reads of every process of this machine, and the clients of this one must not wait for it.
            while not (
                await asyncio.to_thread(self._cluster.is_whole)
                and await self._cluster.all_answer()
                and self._events_pass(ended_s)
            ):
                await asyncio.sleep(_POLL_S)
            self._recorder.add(Recovered(fault_id=planned.fault_id, at_s=self._recorder.now_s()))

    def _events_pass(self, since_s: float) -> bool:
        """Whether what was published since then, at each node, has come to all followers; or nobody publishes any more."""
        history = self._recorder.history
        acknowledged = history.of(Acknowledged)
        if acknowledged and acknowledged[-1].at_s < self._recorder.now_s() - _SILENCE_S:
            return True
        followers = {each.follower for each in history.of(Following)}
        seen: dict[int, set[str]] = defaultdict(set)
        for each in history.of(Seen):
            if each.at_s > since_s:
                seen[each.number].add(each.follower)
        published = [each for each in acknowledged if each.at_s > since_s and seen[each.number] == followers]
        return len({each.publisher for each in published}) == len(self._cluster.nodes)

    @asynccontextmanager
    async def _kill_node(self, target: str) -> AsyncIterator[None]:
        """All its processes at once; started again later, with its disk."""
        node = self._cluster.nodes[target]
        await asyncio.to_thread(node.kill)
        yield
        with contextlib.suppress(GatewayFailed):  # it is killed again: that is another fault
            await node.start_again()

    @asynccontextmanager
    async def _stop_node(self, target: str) -> AsyncIterator[None]:
        self._cluster.signal(target, signal.SIGSTOP)
        try:
            yield
        finally:
            self._cluster.signal(target, signal.SIGCONT)

    @asynccontextmanager
    async def _kill_nats(self, target: str) -> AsyncIterator[None]:
        self._cluster.nats.kill(target)
        try:
            yield
        finally:
            self._cluster.nats.start(target)

    @asynccontextmanager
    async def _kill_most_nats(self, target: str) -> AsyncIterator[None]:
        """All but the target."""
        killed = [name for name in NATS if name != target]
        for name in killed:
            self._cluster.nats.kill(name)
        try:
            yield
        finally:
            for name in killed:
                self._cluster.nats.start(name)

    @asynccontextmanager
    async def _cut_off(self, target: str) -> AsyncIterator[None]:
        """From all NATS servers, and the one on its machine from the others; its clients reach it."""
        cut = self._cut_of(target)
        cut(True)
        try:
            yield
        finally:
            cut(False)

    def _cut_of(self, target: str) -> Callable[[bool], None]:
        machine = self._cluster.machines[target]
        if machine.can_be_cut_off:
            return machine.cut

        def cut_links(is_cut: bool) -> None:
            for link in self._cluster.links[target]:
                link.is_cut = is_cut

        return cut_links

    @asynccontextmanager
    async def _slow_links(self, _target: str) -> AsyncIterator[None]:
        links = [link for links in self._cluster.links.values() for link in links]
        for link in links:
            link.delay_s = SLOW_S
        try:
            yield
        finally:
            for link in links:
                link.delay_s = 0.0
