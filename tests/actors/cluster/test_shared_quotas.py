"""Nodes that tell each other what clients have used of their day: all come to the same sum, whatever was missed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Mapping
from pathlib import Path

import pytest

from mcp_gateway.actors.cluster import shared_quotas
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.shared_limits import Members
from mcp_gateway.actors.cluster.shared_quotas import MOST_CLIENTS, SharedQuotas
from mcp_gateway.actors.storage.quota_file import QuotaFile
from tests.actors.cluster.member_hub import Hub
from tests.doubles.patience import until

TODAY = 20_000
MANY = 100_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays the same day, and only who has come or gone, or a failure, makes a node say all again."""
    monkeypatch.setattr(shared_quotas, "REPORT_S", 0.02)
    monkeypatch.setattr(shared_quotas, "ALL_S", 1_000.0)
    monkeypatch.setattr(shared_quotas, "day_of", lambda now_s: TODAY)


class Node:
    """One node, with a cell that counts and reads."""

    def __init__(self, hub: Hub, folder: Path, name: str, secret: bytes = b"s" * 32, *, file: QuotaFile | None = None) -> None:
        self.node = name
        self._hub = hub
        self.engine = MemoryEngine(hub.engines)
        self._folder = folder / name
        self._folder.mkdir(exist_ok=True)
        self.cell = QuotaFile(self._folder, name)
        self.quotas = SharedQuotas(self.engine, packet_cipher(secret), self, file or QuotaFile(self._folder, name))
        self.task = asyncio.create_task(self.quotas.run())

    def members(self) -> Members:
        return self._hub.members if self.node in dict(self._hub.members) else ()

    def counted(self) -> dict[str, int]:
        """By all nodes, as far as this one knows."""
        reader = QuotaFile(self._folder, self.node)
        try:
            return reader.news(TODAY, MANY)
        finally:
            reader.close()


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, 120))  # type: ignore[arg-type]


def test_all_nodes_know_the_sum_also_one_that_comes_later(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        a, b = Node(hub, tmp_path, "a"), Node(hub, tmp_path, "b")
        hub.join("a", "b")
        a.cell.add(TODAY, {"ann": 2})
        b.cell.add(TODAY, {"ann": 1, "bob": 1})
        await until(*(lambda node=node: node.counted() == {"ann": 3, "bob": 1} for node in (a, b)))  # type: ignore[misc]
        a.cell.add(TODAY, {"ann": 4})
        await until(lambda: b.counted() == {"ann": 7, "bob": 1})
        c = Node(hub, tmp_path, "c")
        hub.join("a", "b", "c")
        await until(lambda: c.counted() == {"ann": 7, "bob": 1})

    run(test())


def test_what_was_counted_without_the_engine_is_known_to_all_when_it_is_there_again(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        a, b = Node(hub, tmp_path, "a"), Node(hub, tmp_path, "b")
        hub.join("a", "b")
        a.cell.add(TODAY, {"ann": 2})
        await until(lambda: b.counted() == {"ann": 2})
        hub.engines.cut_off.add(a.engine)
        a.cell.add(TODAY, {"ann": 3})
        b.cell.add(TODAY, {"ann": 1})
        await until(lambda: b.counted() == {"ann": 3})
        hub.engines.cut_off.discard(a.engine)
        await until(lambda: b.counted() == {"ann": 6})

    run(test())


def test_more_clients_than_one_message_takes_are_told_in_several(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        a, b = Node(hub, tmp_path, "a"), Node(hub, tmp_path, "b")
        counts = {f"client {number}": 1 for number in range(MOST_CLIENTS + 1)}
        a.cell.add(TODAY, counts)
        hub.join("a", "b")
        await until(lambda: b.counted() == counts)

    run(test())


def test_what_has_another_key_or_is_of_another_day_counts_nowhere(tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        a, stranger, b = Node(hub, tmp_path, "a"), Node(hub, tmp_path, "stranger", b"x" * 32), Node(hub, tmp_path, "b")
        heard: list[bytes] = []
        await b.engine.subscribe("quotas", heard.append)
        await a.engine.publish("quotas", b"nothing that a node has said")
        await a.engine.publish("quotas", a.quotas._seal(shared_quotas._Counted("late", TODAY - 1, {"cid": 9})))
        stranger.cell.add(TODAY, {"bob": 9})
        hub.join("a", "b", "stranger")
        await until(lambda: len(heard) >= 3)
        a.cell.add(TODAY, {"ann": 1})
        await until(lambda: b.counted() == {"ann": 1})

    run(test())


class HeldFile(QuotaFile):
    """A cell writes: whoever else wants the file waits until it is let go."""

    def __init__(self, folder: Path) -> None:
        (folder / "b").mkdir()
        super().__init__(folder / "b", "b")
        self.let_go = threading.Event()
        self.waited: list[str] = []
        self.was_let_go: list[bool] = []
        self.is_closed = False

    def take(self, day: int, node: str, counts: Mapping[str, int]) -> None:
        self._wait("take")
        super().take(day, node, counts)

    def own(self, day: int, after: int) -> tuple[int, dict[str, int]]:
        self._wait("own")
        return super().own(day, after)

    def close(self) -> None:
        super().close()
        self.is_closed = True

    def _wait(self, what: str) -> None:
        self.waited.append(what)
        self.was_let_go.append(self.let_go.wait(20))


@pytest.mark.parametrize("what", ["own", "take"])
def test_while_the_file_is_busy_the_loop_goes_on_and_what_is_heard_meanwhile_is_kept(what: str, tmp_path: Path) -> None:
    async def test() -> None:
        hub = Hub()
        file = HeldFile(tmp_path)
        b = Node(hub, tmp_path, "b", file=file)
        a = Node(hub, tmp_path, "a")
        hub.join("a", *(["b"] if what == "own" else []))

        heard: list[bytes] = []
        await b.engine.subscribe("quotas", heard.append)

        async def say(counts: dict[str, int]) -> None:
            packet = a.quotas._seal(shared_quotas._Counted("c", TODAY, counts))
            await a.engine.publish("quotas", packet)
            await until(lambda: packet in heard)

        while what == "take" and not file.waited:  # it may not listen yet
            await say({"ann": 2})
            await asyncio.sleep(0.01)
        await until(lambda: file.waited == [what])
        await say({"ann": 7, "bob": 1})
        await say({"ann": 3})
        file.let_go.set()
        await until(lambda: b.counted() == {"ann": 7, "bob": 1})
        assert all(file.was_let_go)
        b.task.cancel()
        await until(lambda: file.is_closed)

    run(test())


def test_the_file_is_closed_after_what_is_under_way_in_it(tmp_path: Path) -> None:
    """Closed under a thread that writes, it would count as broken and be moved aside."""

    async def test() -> None:
        hub = Hub()
        file = HeldFile(tmp_path)
        b = Node(hub, tmp_path, "b", file=file)
        hub.join("b")
        await until(lambda: file.waited)
        b.task.cancel()
        await asyncio.wait([b.task])
        assert not file.is_closed
        file.let_go.set()
        await until(lambda: file.is_closed)

    run(test())
