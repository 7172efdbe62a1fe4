"""What nodes keep in keys of the engine: nobody else reads it, makes it, or puts it under another name."""

from __future__ import annotations

import asyncio

import pytest

from mcp_gateway.actors.cluster.engine import Entry, WrongRevision
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.sealed_keys import SealedKeys

OLD, NEW = b"o" * 32, b"n" * 32


def test_what_one_node_writes_another_one_reads_and_the_engine_does_not() -> None:
    async def test() -> None:
        engine = MemoryEngine(MemoryHub())
        a, b = SealedKeys(engine, packet_cipher(OLD)), SealedKeys(engine, packet_cipher(NEW, OLD))
        revision = await a.create("node.a", b"it is me")
        assert await b.get("node.a") == Entry("node.a", revision, b"it is me")
        carried = await engine.get("node.a")
        assert carried is not None
        assert b"it is me" not in (carried.value or b"")
        with pytest.raises(WrongRevision):
            await a.update("node.a", b"again", revision + 1)
        revision = await a.update("node.a", b"again", revision)
        watched = a.watch("node.")
        assert await anext(watched) == (Entry("node.a", revision, b"again"),)
        await a.delete("node.a", revision)
        assert await anext(watched) == (Entry("node.a", revision + 1, None),)
        assert await a.get("node.a") is None

    asyncio.run(test())


def test_what_no_node_has_made_for_this_very_key_says_nothing() -> None:
    async def test() -> None:
        engine = MemoryEngine(MemoryHub())
        keys = SealedKeys(engine, packet_cipher(OLD))
        await keys.create("node.a", b"it is me")
        (made,) = [found.value for found in [await engine.get("node.a")] if found is not None]
        await SealedKeys(engine, packet_cipher(NEW)).create("node.b", b"of another cluster")
        for number, forged in enumerate((made, b"", b"short", b"it is me" * 10)):
            await engine.create(f"node.{number}", forged or b"")
        for name in ("b", *range(4)):
            found = await keys.get(f"node.{name}")
            assert found is not None
            assert found.value == b""

    asyncio.run(test())
