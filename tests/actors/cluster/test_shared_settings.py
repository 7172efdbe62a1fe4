"""Settings that all nodes follow: each change is made of the newest ones, is told to all, and comes back from nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from mcp_gateway.actors.cluster.engine import EngineAway, WrongRevision
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.shared_settings import ClusterSettingsState, SharedSettings, read_state, sealed_state
from tests.doubles.patience import until

CIPHER = packet_cipher(b"s" * 32)
KEY = "settings.shared"


class Node:
    """What one node is told."""

    def __init__(self, hub: MemoryHub, **known: Any) -> None:
        self.engine = MemoryEngine(hub)
        self.told: list[ClusterSettingsState] = []
        self.shared = SharedSettings(self.engine, CIPHER, self.told.append, **known)
        self.running = asyncio.create_task(self.shared.run())

    def has(self, tables: bytes) -> Callable[[], bool]:
        return lambda: bool(self.told) and self.told[-1].tables == tables


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))  # type: ignore[arg-type]


def test_a_change_is_told_to_all_nodes_also_to_one_that_starts_later() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub), Node(hub)
        assert await a.shared.change(0, "file", "file", b"one") == 1
        await until(a.has(b"one"), b.has(b"one"))
        assert await b.shared.change(1, "other", "file", b"two") == 2
        late = Node(hub)
        await until(a.has(b"two"), late.has(b"two"))
        assert late.told == [ClusterSettingsState(2, "other", "file", b"two")]

    run(test())


def test_of_two_changes_at_once_one_is_refused_and_changes_nothing() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(hub), Node(hub)
        await a.shared.change(0, "file", "file", b"one")
        await until(b.has(b"one"))
        both = await asyncio.gather(
            a.shared.change(1, "file", "file", b"a"), b.shared.change(1, "file", "file", b"b"), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in both) == ["WrongRevision", "int"]
        with pytest.raises(WrongRevision):
            await b.shared.change(1, "file", "file", b"made of older ones")
        await until(lambda: a.told == b.told, lambda: len(a.told) == 2)

    run(test())


def test_without_the_engine_nothing_changes() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a = Node(hub)
        hub.cut_off.add(a.engine)
        with pytest.raises(EngineAway):
            await a.shared.change(0, "file", "file", b"one")
        hub.cut_off.clear()
        assert await a.engine.get(KEY) is None

    run(test())


def test_an_older_state_that_is_put_back_or_a_forged_one_is_told_to_nobody() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a = Node(hub)
        await a.shared.change(0, "file", "file", b"one")
        old = await a.engine.get(KEY)
        assert old is not None
        await a.shared.change(1, "file", "file", b"two")
        await until(a.has(b"two"))
        for value in (
            old.value,
            b"forged",
            sealed_state(packet_cipher(b"x" * 32), ClusterSettingsState(9, "file", "file", b"three")),
        ):
            now = await a.engine.get(KEY)
            assert now is not None
            assert value is not None
            await a.engine.update(KEY, value, now.revision)
        await asyncio.sleep(0.1)
        assert a.told[-1].tables == b"two"
        assert await a.shared.change(2, "file", "file", b"four") == 3
        await until(a.has(b"four"))

    run(test())


def test_a_node_that_was_started_again_does_not_take_older_settings_than_it_had_and_the_next_change_replaces_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        hub = MemoryHub()
        kept: list[int] = []
        a = Node(hub, keep=kept.append)
        await a.shared.change(0, "file", "file", b"one")
        old = await a.engine.get(KEY)
        assert old is not None
        assert old.value is not None
        await a.shared.change(1, "file", "file", b"two")
        await until(a.has(b"two"))
        assert kept[-1] == 2
        same = Node(hub, lowest=2)
        await until(same.has(b"two"))
        for node in (a, same):
            node.running.cancel()
        now = await a.engine.get(KEY)
        assert now is not None
        await a.engine.update(KEY, old.value, now.revision)
        again, fresh = Node(hub, lowest=2), Node(hub)
        await until(fresh.has(b"one"), lambda: any("number 1, and this node had 2 before" in each for each in caplog.messages))
        assert again.told == []
        assert await again.shared.change(0, "file", "file", b"three") == 3
        await until(again.has(b"three"), fresh.has(b"three"))

    run(test())


def test_a_state_that_another_version_has_written_more_into_is_read() -> None:
    more = msgspec.msgpack.encode([7, "file", "before", b"tables", {"a field of tomorrow": 1}])
    nonce = b"n" * 12
    sealed = nonce + CIPHER.encrypt(nonce, more, KEY.encode())
    assert read_state(CIPHER, sealed) == ClusterSettingsState(7, "file", "before", b"tables")


def test_a_state_is_read_with_the_key_of_the_cluster_alone() -> None:
    state = ClusterSettingsState(1, "file", "", b"tables")
    assert read_state(CIPHER, sealed_state(CIPHER, state)) == state
    assert b"tables" not in sealed_state(CIPHER, state)
    for value in (b"", b"short", sealed_state(packet_cipher(b"x" * 32), state)):
        assert read_state(CIPHER, value) is None
