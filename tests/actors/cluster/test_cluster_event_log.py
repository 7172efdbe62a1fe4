"""What the log of a node tells its cells, and when, while it reads the cluster's."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.actors.cluster import cluster_event_log
from mcp_gateway.actors.cluster.cluster_event_log import ClusterEventLog
from mcp_gateway.actors.cluster.engine import Engine, EngineAway
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.stream_order import sealed_entry
from mcp_gateway.actors.messages.event_log import EventsDistributed, JoinEventLog, UnstoredEvent
from mcp_gateway.actors.messages.node import EventLogArguments
from mcp_gateway.config.cluster_settings import ClusterSettings
from tests.doubles.actor_stage import Stage

ENTRIES = 600
"""More than one page of the log."""


class LateEngine(MemoryEngine):
    is_there = False


async def filled(hub: MemoryHub, secret: bytes) -> None:
    engine, cipher = MemoryEngine(hub), packet_cipher(secret)
    for number in range(1, ENTRIES + 1):
        event = UnstoredEvent(source="other", sequence=number, topic="mcp.x", payload_json=b"{}", timestamp_ms=0)
        await engine.append("spool", number, sealed_entry(cipher, b"n" * 12, "spool", number, event))


def test_a_cell_of_a_node_without_a_copy_has_caught_up_when_the_clusters_log_was_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else who follows a topic there would begin with id 0, and be told of all that was ever published as missed, or as new."""
    secret = secrets.token_bytes(32)
    key_file = tmp_path / "key"
    key_file.write_bytes(secret)
    key_file.chmod(0o600)

    async def body() -> None:
        hub = MemoryHub()
        await filled(hub, secret)
        engine = LateEngine(hub)

        async def connect(_settings: ClusterSettings, _retention: int) -> Engine:
            if not engine.is_there:
                raise EngineAway("not yet")
            return engine

        monkeypatch.setattr(cluster_event_log, "connect", connect)
        monkeypatch.setattr("mcp_gateway.actors.events.event_log.setproctitle", lambda _title: None)
        monkeypatch.setattr("mcp_gateway.actors.cluster.log_follower._AGAIN_S", 0.01)
        stage = Stage()
        cluster = ClusterSettings(url="nats://127.0.0.1:1", node="a", key_file=str(key_file))
        arguments = EventLogArguments(state_path=None, retention_events=10_000, cell_count=2, cluster=cluster)
        address = stage.start(ClusterEventLog, {}, arguments, name="event-log")
        log: Any = stage.instance(address)
        new, old = stage.peer(), stage.peer()

        async def batch() -> None:
            """As at the end of each batch of mail; in one process nobody calls it."""
            await asyncio.sleep(0.01)
            log.on_batch_handled()

        def join(name: str, last_event_id: int) -> JoinEventLog:
            return JoinEventLog(
                cell_name=name,
                source=name,
                last_event_id=last_event_id,
                recent_events=(),
                confirmed_sequence=0,
                unstored=(),
            )

        new.say(address, join("cell/0", 0))
        for _ in range(3):
            await batch()
        assert new.of(EventsDistributed) == []
        engine.is_there = True
        async with asyncio.timeout(10):
            while not any(told.is_catch_up for told in new.of(EventsDistributed)):
                await batch()
        caught_up = [told for told in new.of(EventsDistributed) if told.is_catch_up]
        assert [stored.id for told in caught_up for stored in told.events] == [*range(1, ENTRIES + 1)]
        old.say(address, join("cell/1", ENTRIES - 1))
        async with asyncio.timeout(10):
            while not old.of(EventsDistributed):
                await batch()
        assert [stored.id for stored in old.only(EventsDistributed).events] == [ENTRIES]

    asyncio.run(body())
