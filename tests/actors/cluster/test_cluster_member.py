"""The process that is a node's member: what it passes on to which of the node's cells."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from thespian.actors import ActorAddress

from mcp_gateway.actors.cluster import cluster_member
from mcp_gateway.actors.cluster.cluster_member import ClusterMember
from mcp_gateway.actors.cluster.engine import Engine
from mcp_gateway.actors.cluster.member import Member
from mcp_gateway.actors.cluster.membership import Presence
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.messages.between_cells import Forwarded
from mcp_gateway.actors.messages.cluster import ClusterMemberArguments, ForwardToNode, Ownership
from mcp_gateway.actors.messages.node import NODE_SUPERVISOR, CellsChanged
from mcp_gateway.config.cluster_settings import ClusterSettings
from tests.doubles.actor_stage import Peer, Stage


class OtherNode:
    """Another node of the cluster, without a process of its own."""

    def __init__(self, hub: MemoryHub, secret: bytes) -> None:
        self._engine = MemoryEngine(hub)
        self.others: dict[str, Presence] = {}
        own = Presence(node="b", epoch=0, incarnation="b1", cells={"cell/0": 1})
        self.member = Member(self._connect, own, packet_cipher(secret), self)
        self.running = asyncio.create_task(self.member.run())

    async def _connect(self) -> Engine:
        return self._engine

    def nodes_changed(self, others: Mapping[str, Presence], *, is_member: bool) -> None:
        self.others = dict(others)

    def take_forward(self, forward: ForwardToNode, sender_epoch: int) -> None:
        """Nobody says anything to it."""

    def forward_lost(self, forward: ForwardToNode, *, is_unsent: bool) -> None:
        pytest.fail(f"{forward} is lost")

    def owners_told(self, owners: Mapping[str, Ownership], lease_until_s: float) -> None:
        """It owns nothing."""

    def say(self, to: str, message: str, to_incarnation: int = 0) -> None:
        self.member.forward(
            ForwardToNode(to_cell=f"a/{to}", from_cell="b/cell/0", incarnation=1, to_incarnation=to_incarnation, message=message)
        )


class Bench:
    """The member of node a, the cell that it has, and node b."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        secret, hub = secrets.token_bytes(32), MemoryHub()
        key_file = folder / "key"
        key_file.write_bytes(secret)
        key_file.chmod(0o600)

        async def connect(_settings: ClusterSettings, _retention: int) -> Engine:
            return MemoryEngine(hub)

        monkeypatch.setattr(cluster_member, "connect", connect)
        monkeypatch.setattr(cluster_member, "setproctitle", lambda _title: None)
        self.stage = Stage()
        arguments = ClusterMemberArguments(
            settings=ClusterSettings(url="nats://127.0.0.1:1", node="a", key_file=str(key_file)),
            node_incarnation="a1",
            cell_count=1,
            retention_events=10,
            url="",
        )
        self.address = self.stage.start(ClusterMember, {}, arguments, name="cluster-member")
        self.other = OtherNode(hub, secret)

    def start_cell(self, incarnation: int) -> Peer:
        cell = self.stage.peer()
        cells: dict[str, tuple[ActorAddress, int]] = {"cell/0": (cell.address, incarnation)}
        self.stage.tell(self.address, CellsChanged(cells=cells))
        return cell

    async def until(self, is_true: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not is_true():
                await asyncio.sleep(0.01)

    async def until_told(self, incarnation: int) -> None:
        """Node b has been told of this incarnation of the cell."""
        await self.until(lambda: "a" in self.other.others and self.other.others["a"].cells == {"cell/0": incarnation})


def said(peer: Peer) -> list[Any]:
    return [forwarded.message for forwarded in peer.of(Forwarded)]


def on_loop(monkeypatch: pytest.MonkeyPatch, folder: Path, body: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench(monkeypatch, folder)
        await body(bench)
        bench.other.running.cancel()
        await asyncio.wait([bench.other.running])

    asyncio.run(run())


def test_what_was_for_a_cell_that_has_ended_is_not_given_to_its_successor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That one knows nothing of what it goes on with; that its predecessor has ended is told by the presence of the node."""

    async def body(bench: Bench) -> None:
        first = bench.start_cell(1)
        await bench.until_told(1)
        bench.other.say("cell/0", "to the first", 1)
        await bench.until(lambda: said(first) == ["to the first"])
        second = bench.start_cell(2)
        bench.other.say("cell/0", "to the first, late", 1)
        bench.other.say("cell/0", "to the second", 2)
        await bench.until(lambda: said(second))
        assert (said(first), said(second)) == (["to the first"], ["to the second"])

    on_loop(monkeypatch, tmp_path, body)


def test_what_is_for_the_supervisor_of_a_node_needs_no_incarnation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.start_cell(1)
        await bench.until_told(1)
        bench.other.say(NODE_SUPERVISOR, "hello")
        await bench.until(lambda: said(bench.stage.supervisor) == ["hello"])

    on_loop(monkeypatch, tmp_path, body)
