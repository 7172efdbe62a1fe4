"""What the log of a node tells its cells, and when, while it reads the cluster's."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.actors.cluster import cluster_event_log
from mcp_gateway.actors.cluster.cluster_event_log import ClusterEventLog
from mcp_gateway.actors.cluster.engine import Engine, EngineAway
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.cluster.stream_order import StreamOrder, read_entry, sealed_entry
from mcp_gateway.actors.events.event_outbox import EventOutbox
from mcp_gateway.actors.messages.event_log import EventsDistributed, JoinEventLog, PublishEvents, StoredEvent, UnstoredEvent
from mcp_gateway.actors.messages.node import EventLogArguments
from mcp_gateway.actors.storage.event_spool import EventSpool
from mcp_gateway.actors.storage.event_store import EventStore
from mcp_gateway.config.cluster_settings import ClusterSettings
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST
from mcp_gateway.transports.protocol.topics.topic_log import Event
from tests.doubles.actor_stage import Peer, Stage

ENTRIES = 600
"""More than one page of the log."""


class LateEngine(MemoryEngine):
    is_there = False


async def filled(hub: MemoryHub, secret: bytes) -> None:
    engine, cipher = MemoryEngine(hub), packet_cipher(secret)
    for number in range(1, ENTRIES + 1):
        event = UnstoredEvent(source="other", sequence=number, topic="mcp.x", payload_json=b"{}", timestamp_ms=0)
        await engine.append("spool", number, sealed_entry(cipher, b"n" * 12, "spool", number, event))


class Bench:
    """The log of one node, and an engine that comes when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, hub: MemoryHub) -> None:
        self.secret = secrets.token_bytes(32)
        self._folder = folder
        self._key_file = folder / "key"
        self._key_file.write_bytes(self.secret)
        self._key_file.chmod(0o600)
        self.hub = hub
        self.engine = LateEngine(hub)
        self._stage = Stage()

        async def connect(_settings: ClusterSettings, _retention: int) -> Engine:
            if not self.engine.is_there:
                raise EngineAway("not yet")
            return self.engine

        monkeypatch.setattr(cluster_event_log, "connect", connect)
        monkeypatch.setattr("mcp_gateway.actors.events.event_log.setproctitle", lambda _title: None)
        monkeypatch.setattr("mcp_gateway.actors.cluster.log_follower._AGAIN_S", 0.01)

    def start(self, *, with_disk: bool = False) -> None:
        cluster = ClusterSettings(url="nats://127.0.0.1:1", node="a", key_file=str(self._key_file))
        state_path = self._folder if with_disk else None
        arguments = EventLogArguments(state_path=state_path, retention_events=10_000, cell_count=2, cluster=cluster)
        self.address = self._stage.start(ClusterEventLog, {}, arguments, name="event-log")
        self.log: Any = self._stage.instance(self.address)

    def join(self, name: str, last_event_id: int = 0) -> Peer:
        cell = self._stage.peer()
        join = JoinEventLog(
            cell_name=name, source=name, last_event_id=last_event_id, recent_events=(), confirmed_sequence=0, unstored=()
        )
        cell.say(self.address, join)
        return cell

    async def batch(self) -> None:
        """As at the end of each batch of mail; in one process nobody calls it."""
        await asyncio.sleep(0.01)
        self.log.on_batch_handled()

    async def until(self, is_true: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not is_true():
                await self.batch()


def taken(cell: Peer) -> EventOutbox:
    """What the cell has of all that it was told."""
    outbox = EventOutbox("cell/0", 10_000)
    assert None not in [outbox.take(message) for message in cell.of(EventsDistributed)]
    return outbox


def knows_all(cell: Peer) -> bool:
    return any(not message.has_more for message in cell.of(EventsDistributed))


def on_loop(monkeypatch: pytest.MonkeyPatch, folder: Path, hub: MemoryHub, body: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        bench = Bench(monkeypatch, folder, hub)
        await body(bench)
        bench.log.on_exit()

    asyncio.run(run())


def test_a_cell_of_a_node_without_a_copy_has_caught_up_when_the_clusters_log_was_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else who follows a topic there would begin with id 0, and be told of all that was ever published as missed, or as new."""

    async def body(bench: Bench) -> None:
        await filled(bench.hub, bench.secret)
        bench.start()
        new = bench.join("cell/0")
        for _ in range(3):
            await bench.batch()
        assert new.of(EventsDistributed) == []
        bench.engine.is_there = True
        await bench.until(lambda: any(told.is_catch_up for told in new.of(EventsDistributed)))
        caught_up = [told for told in new.of(EventsDistributed) if told.is_catch_up]
        assert [stored.id for told in caught_up for stored in told.events] == [*range(1, ENTRIES + 1)]
        assert new.of(EventsDistributed) == caught_up
        old = bench.join("cell/1", ENTRIES - 1)
        await bench.until(lambda: old.of(EventsDistributed))
        assert [stored.id for stored in old.only(EventsDistributed).events] == [ENTRIES]

    on_loop(monkeypatch, tmp_path, MemoryHub(), body)


COPIED = 100


def copy(bench: Bench, folder: Path) -> None:
    """What an earlier start of the node has kept of the cluster's log."""
    store = EventStore(folder, 10_000, lambda _level, text: pytest.fail(text))
    cipher = packet_cipher(bench.secret)
    assert store.write([stored for entry in bench.hub.log[:COPIED] if (stored := read_entry(cipher, entry)) is not None])
    store.close()


def test_a_copy_is_given_to_cells_at_once_and_said_to_be_all_when_the_clusters_log_was_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else who follows a topic at a node that was started again would be sent as new what has come in between."""

    async def body(bench: Bench) -> None:
        await filled(bench.hub, bench.secret)
        copy(bench, tmp_path)
        bench.start(with_disk=True)
        cell = bench.join("cell/0")
        await bench.until(lambda: cell.of(EventsDistributed))
        for _ in range(3):
            await bench.batch()
        assert [taken(cell).last_event_id, knows_all(cell)] == [COPIED, False]
        bench.engine.is_there = True
        await bench.until(lambda: knows_all(cell))
        outbox = taken(cell)
        assert [event.id for event in outbox.events_after(0)] == [*range(1, ENTRIES + 1)]
        assert outbox.lost == NOTHING_LOST
        assert [message.is_catch_up for message in cell.of(EventsDistributed)][1:].count(True) == 0

    on_loop(monkeypatch, tmp_path, MemoryHub(), body)


def test_of_a_new_log_cells_learn_where_ids_begin_before_there_is_an_event(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else whoever follows a topic by then would read with the first event that all ids below it were lost."""
    first = 1_700_000_000_001

    async def body(bench: Bench) -> None:
        bench.start()
        cell = bench.join("cell/0")
        bench.engine.is_there = True
        await bench.until(lambda: knows_all(cell))
        begun = taken(cell)
        assert (begun.last_event_id, begun.events_after(0)) == (first - 1, [])
        cell.say(bench.address, PublishEvents(events=(begun.publish("mcp.x", {}, 0),)))
        await bench.until(lambda: taken(cell).events_after(0))
        assert [event.id for event in taken(cell).events_after(first - 1)] == [first]

    on_loop(monkeypatch, tmp_path, MemoryHub(last_sequence=first - 1), body)


def test_a_node_starts_at_once_however_much_has_waited_for_the_clusters_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hours of events, beside a copy of 10,000: what is appended is what the copy does not have, in its order."""
    copied = [
        StoredEvent(event=Event(id=number, topic="mcp.x", payload_json=b"{}", timestamp_ms=0), source="s", sequence=number)
        for number in range(1, 10_001)
    ]
    waiting = [
        UnstoredEvent(source="s", sequence=number, topic="mcp.x", payload_json=b"{}", timestamp_ms=0)
        for number in range(9_001, 29_001)
    ]
    store = EventStore(tmp_path, 10_000, lambda _level, text: pytest.fail(text))
    assert store.write(copied)
    store.close()
    spool = EventSpool(tmp_path, lambda _level, text: pytest.fail(text))
    spool.add(waiting)
    spool.close()

    async def body(bench: Bench) -> None:
        looks = 0

        def places(order: StreamOrder) -> frozenset[tuple[str, int]]:
            nonlocal looks
            looks += 1
            return real(order)

        real = StreamOrder.places
        monkeypatch.setattr(StreamOrder, "places", places)
        bench.start(with_disk=True)
        assert looks == 1
        await bench.until(lambda: len(bench.log._follower._waiting) == 19_000)
        assert [each.event.sequence for each in bench.log._follower._waiting] == [*range(10_001, 29_001)]

    on_loop(monkeypatch, tmp_path, MemoryHub(), body)
