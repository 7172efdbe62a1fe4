"""Nodes that append to one log and read it: none lost, none twice, one order, whatever the engine does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import attrs

from mcp_gateway.actors.cluster.engine import Engine, EngineAway, LogPage
from mcp_gateway.actors.cluster.log_follower import LogFollower
from mcp_gateway.actors.cluster.memory_engine import MemoryEngine, MemoryHub
from mcp_gateway.actors.cluster.node_packets import packet_cipher
from mcp_gateway.actors.messages.event_log import StoredEvent, UnstoredEvent
from mcp_gateway.actors.storage.event_spool import SpooledEvent
from tests.doubles.patience import until

CIPHER = packet_cipher(b"s" * 32)


class FlakyEngine(MemoryEngine):
    """Every third append is carried out, and its answer lost."""

    append_count = 0

    async def append(self, source: str, number: int, data: bytes) -> None:
        await super().append(source, number, data)
        self.append_count += 1
        if self.append_count % 3 == 0:
            raise EngineAway("the answer is lost")


class Node:
    def __init__(self, engine: MemoryEngine, name: str, last_id: int = 0) -> None:
        self.engine = engine
        self.name = name
        self.read: list[StoredEvent] = []
        self.places: list[tuple[str, int]] = []
        self.last_id = 0  # after which the log goes on, as was told last
        self.ends: list[int] = []  # how much had been read each time that the end was told of
        self.follower = LogFollower(self._connect, CIPHER, last_id, self._take)
        self.running = asyncio.create_task(self.follower.run())

    async def _connect(self) -> Engine:
        return self.engine

    def _take(self, events: tuple[StoredEvent, ...], places: tuple[tuple[str, int], ...], last_id: int) -> None:
        self.read += events
        self.places += places
        if not places:
            self.ends.append(len(self.read))
            self.last_id = last_id

    def publish(self, first: int, last: int) -> None:
        events = (
            UnstoredEvent(source=self.name, sequence=number, topic="mcp.x", payload_json=b"{}", timestamp_ms=0)
            for number in range(first, last + 1)
        )
        self.follower.append(SpooledEvent(f"spool-{self.name}", event.sequence, event) for event in events)

    def sequences(self, source: str) -> list[int]:
        return [stored.sequence for stored in self.read if stored.source == source]


def run(test: Awaitable[None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))  # type: ignore[arg-type]


def test_all_nodes_read_what_all_have_published_in_one_order() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(MemoryEngine(hub), "a"), Node(MemoryEngine(hub), "b")
        a.publish(1, 50)
        b.publish(1, 50)
        await until(lambda: len(a.read) == len(b.read) == 100)
        assert a.read == b.read
        assert a.sequences("a") == a.sequences("b") == [*range(1, 51)]
        assert set(a.places) == {(f"spool-{name}", number) for name in "ab" for number in range(1, 51)}

    run(test())


def test_what_has_no_answer_is_said_again_and_is_there_once() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(FlakyEngine(hub), "a"), Node(MemoryEngine(hub), "b")
        a.publish(1, 10)
        await until(lambda: len(b.read) == 10)
        await asyncio.sleep(1.5)
        assert b.sequences("a") == [*range(1, 11)]

    run(test())


def test_while_the_engine_is_away_events_wait_and_come_in_their_order_when_it_is_back() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, b = Node(MemoryEngine(hub), "a"), Node(MemoryEngine(hub), "b")
        a.publish(1, 5)
        await until(lambda: len(b.read) == 5)
        hub.cut_off.add(a.engine)
        a.publish(6, 10)
        b.publish(1, 3)
        await until(lambda: b.sequences("b") == [1, 2, 3])
        assert b.sequences("a") == [*range(1, 6)]
        assert a.sequences("b") == []
        hub.cut_off.clear()
        await until(lambda: a.sequences("a") == [*range(1, 11)] and a.sequences("b") == [1, 2, 3])
        await until(lambda: a.read == b.read)

    run(test())


def test_a_node_goes_on_where_its_copy_ends_and_leaves_out_what_no_node_has_made() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a = Node(MemoryEngine(hub), "a")
        a.publish(1, 3)
        await until(lambda: len(a.read) == 3)
        hub.append("stranger", 1, b"rubbish")
        a.publish(4, 5)
        late = Node(MemoryEngine(hub), "b", last_id=2)
        await until(lambda: len(late.read) == 3)
        assert [stored.id for stored in late.read] == [3, 5, 6]

    run(test())


def test_a_log_that_begins_beyond_what_there_is_says_so_before_its_first_entry() -> None:
    """A new one, and one that was made anew after the engine had lost its data."""

    async def test() -> None:
        hub = MemoryHub(last_sequence=9_000)
        a = Node(MemoryEngine(hub), "a")
        await until(lambda: a.ends)
        assert a.last_id == 9_000
        a.publish(1, 2)
        await until(lambda: len(a.read) == 2)
        hub.log, hub.last_sequence, hub.last_numbers = [], 20_000, {}
        hub.has_news.set()
        hub.has_news = asyncio.Event()
        await until(lambda: a.last_id == 20_000)
        a.publish(3, 3)
        await until(lambda: len(a.read) == 3)
        assert [stored.id for stored in a.read] == [9_001, 9_002, 20_001]

    run(test())


class BehindEngine(MemoryEngine):
    """Reads from a replica that knows how much there is, and has not got it yet."""

    is_behind = True
    read_count = 0

    async def read_log(self, after: int) -> LogPage:
        self.read_count += 1
        page = await super().read_log(after)
        return attrs.evolve(page, entries=()) if self.is_behind else page


def test_a_replica_that_is_behind_is_not_taken_for_the_end_of_the_log() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a, engine = Node(MemoryEngine(hub), "a"), BehindEngine(hub)
        a.publish(1, 3)
        await until(lambda: len(a.read) == 3)
        b = Node(engine, "b")
        await until(lambda: engine.read_count == 3)
        assert b.ends == []
        engine.is_behind = False
        await until(lambda: b.ends)
        assert (b.ends, b.read) == ([3], a.read)

    run(test())


def test_that_the_log_was_read_to_its_end_is_told_once() -> None:
    async def test() -> None:
        hub = MemoryHub()
        a = Node(MemoryEngine(hub), "a")
        await until(lambda: a.ends)
        a.publish(1, 600)
        await until(lambda: len(a.read) == 600)
        b = Node(MemoryEngine(hub), "b")
        await until(lambda: b.ends)
        a.publish(601, 601)
        await until(lambda: len(b.read) == 601)
        assert (a.ends, b.ends) == ([0], [600])

    run(test())
