"""Nodes that share limits over an engine: by use, frozen without it, taken over from a node that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mcp_gateway.actors.cluster import shared_limits
from mcp_gateway.actors.cluster.limit_parts import KEPT_BACK, NEW_PART, Held
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.shared_limits import Members, SharedLimits
from tests.actors.cluster.member_hub import Hub
from tests.doubles.patience import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_limits, "REPORT_S", 0.02)


class Node:
    """One node; it is asked for `wanted` in each round, as long as it runs."""

    def __init__(self, hub: Hub, name: str, secret: bytes = b"s" * 32) -> None:
        self.node = name
        self._hub = hub
        self.engine = MemoryEngine(hub.engines)
        self.told: list[Held] = []
        self.wanted: dict[str, float] = {}
        self.limits = SharedLimits(self.engine, packet_cipher(secret), self, self.told.append)
        self.tasks = [asyncio.create_task(self.limits.run()), asyncio.create_task(self._ask())]

    def members(self) -> Members:
        return self._hub.members if self.node in dict(self._hub.members) else ()

    async def _ask(self) -> None:
        while True:
            self.limits.asked(self.wanted)
            await asyncio.sleep(0.02)

    def holds(self, part: float, client: str = "somebody") -> Callable[[], bool]:
        return lambda: self.limits.held.of(client) == pytest.approx(part)

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, 90))  # type: ignore[arg-type]


def test_nodes_share_by_use_and_take_over_from_one_that_is_gone() -> None:
    async def test() -> None:
        hub = Hub()
        a, b, c = (Node(hub, name) for name in "abc")
        assert a.limits.held == Held(NEW_PART)
        hub.join("a", "b", "c")
        await until(*(node.holds(1 / 3) for node in (a, b, c)))
        b.wanted = {"ada": 5.0}
        await until(b.holds(1 - KEPT_BACK * 2 / 3, "ada"), a.holds(KEPT_BACK / 3, "ada"))
        assert b.told[-1] == b.limits.held
        a.end()  # which has decided
        hub.join("b", "c")
        await until(b.holds(1 - KEPT_BACK / 2, "ada"), c.holds(0.5))
        b.wanted = {}
        await until(b.holds(0.5, "ada"), c.holds(0.5, "ada"))

    run(test())


def test_without_the_engine_or_outside_of_the_cluster_parts_stay_as_they_are() -> None:
    async def test() -> None:
        hub = Hub()
        a, b = Node(hub, "a"), Node(hub, "b")
        hub.join("a", "b")
        await until(a.holds(0.5), b.holds(0.5))
        hub.engines.cut_off.add(b.engine)
        b.wanted = {"ada": 5.0}
        told = len(b.told)
        await asyncio.sleep(0.3)  # rounds in which nothing may happen
        assert len(b.told) == told
        assert b.limits.held.of("ada") == pytest.approx(0.5)
        hub.engines.cut_off.discard(b.engine)
        await until(b.holds(1 - KEPT_BACK / 2, "ada"))
        held = b.limits.held
        hub.members = ()
        await asyncio.sleep(0.3)
        assert b.limits.held == held

    run(test())


def test_who_has_another_key_is_answered_nothing_and_gets_nothing_from_others() -> None:
    async def test() -> None:
        hub = Hub()
        a, stranger = Node(hub, "a"), Node(hub, "b", b"x" * 32)
        hub.join("a", "b")
        await asyncio.sleep(0.3)
        assert stranger.limits.held == a.limits.held == Held(NEW_PART), "not all members have said what they hold"

    run(test())


def test_a_report_that_comes_again_counts_no_more() -> None:
    """It says what the node held then: others would be given what it holds now."""

    async def test() -> None:
        hub = Hub()
        packets: list[bytes] = []
        a, b = Node(hub, "a"), Node(hub, "b")
        request = b.engine.request

        async def record(subject: str, payload: bytes, timeout_s: float) -> bytes:
            packets.append(payload)
            return await request(subject, payload, timeout_s)

        b.engine.request = record  # type: ignore[method-assign]
        hub.join("a", "b")
        await until(a.holds(0.5), b.holds(0.5))
        for packet in packets[:3]:
            assert await request("limits.a.1", packet, 1.0) == b""
        assert await request("limits.a.1", b"short", 1.0) == b""

    run(test())
