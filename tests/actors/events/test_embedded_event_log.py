"""The event log of an embedded cell: in order, on disk before anybody hears of it, and never in the loop's way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from mcp_gateway.actors.events.embedded_event_log import EmbeddedEventLog
from mcp_gateway.actors.storage.event_store import FILE_NAME, EventStore
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event, InvalidTopic
from tests.doubles.full_disk import file_size_limit
from tests.doubles.patience import on_loop, until


class Bench:
    """A log, and what it has handed on."""

    def __init__(self, directory: Path | None, retention: int = 1_000) -> None:
        self.handed_on: list[Event] = []
        self.batch_sizes: list[int] = []
        self.log = EmbeddedEventLog(directory, retention, self._take)

    def _take(self, events: list[Event]) -> None:
        self.handed_on += events
        self.batch_sizes.append(len(events))

    def publish(self, *topics: str) -> None:
        for topic in topics:
            self.log.publish(topic, {"topic": topic}, 7)

    async def until_count(self, count: int) -> None:
        await until(lambda: len(self.handed_on) >= count)

    def ids(self) -> list[int]:
        return [event.id for event in self.handed_on]


def on_disk(directory: Path) -> list[str]:
    store = EventStore(directory, 1_000, lambda _level, text: pytest.fail(text))
    store.close()
    return [stored.event.topic for stored in store.loaded]


@pytest.mark.parametrize("is_durable", [False, True])
def test_events_are_handed_on_in_the_order_of_their_ids(tmp_path: Path, is_durable: bool) -> None:
    async def body() -> None:
        bench = Bench(tmp_path if is_durable else None)
        for number in range(50):
            bench.publish(f"t.n{number}", f"t.m{number}")
            if number % 7 == 0:
                await asyncio.sleep(0)
        assert len(bench.handed_on) < 100
        await bench.until_count(100)
        assert bench.ids() == list(range(1, 101))
        assert bench.log.events_after(0) == bench.handed_on
        assert bench.log.events_after(98) == bench.handed_on[98:]
        bench.log.close()

    on_loop(body)


def test_what_is_handed_on_is_on_disk_and_the_next_log_goes_on(tmp_path: Path) -> None:
    async def body() -> None:
        first = Bench(tmp_path)
        first.publish("t.one", "t.two")
        await first.until_count(2)
        first.publish("t.three")  # not handed on any more
        first.log.close()
        second = Bench(tmp_path)
        assert [event.topic for event in second.log.events_after(0)] == ["t.one", "t.two", "t.three"]
        second.publish("t.four")
        await second.until_count(1)
        assert second.ids() == [4]
        second.log.close()

    on_loop(body)
    assert on_disk(tmp_path) == ["t.one", "t.two", "t.three", "t.four"]


@pytest.mark.parametrize("is_durable", [False, True])
def test_a_flood_of_clients_leaves_the_gateways_own_to_this_log_and_to_the_next(tmp_path: Path, is_durable: bool) -> None:
    async def body() -> None:
        first = Bench(tmp_path if is_durable else None, retention=10)
        first.publish("mcp.own", *["client.flood"] * 50)
        await first.until_count(51)
        logs = [first.log]
        if is_durable:
            first.log.close()
            logs.append(Bench(tmp_path, retention=10).log)
        for log in logs:
            assert [event.id for event in log.events_after(0)] == [1, *range(42, 52)]
            assert (log.lost, log.last_id) == (LostIds(of_clients=41), 51)
        logs[-1].close()

    on_loop(body)


def test_a_disk_that_takes_its_time_holds_up_no_loop_and_gets_what_gathers_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    commit = EventStore.write
    monkeypatch.setattr(EventStore, "write", lambda store, events: go_on.wait(10) and commit(store, events))

    async def body() -> None:
        bench = Bench(tmp_path)
        bench.publish("t.first")
        for number in range(20):
            bench.publish(f"t.n{number}")
            await asyncio.sleep(0)
        assert bench.handed_on == []
        go_on.set()
        await bench.until_count(21)
        assert bench.batch_sizes == [1, 20]
        bench.log.close()

    on_loop(body)


def test_a_disk_that_takes_nothing_costs_the_events_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_gateway.actors.events.embedded_event_log.MOST_UNSTORED_EVENTS", 3)
    go_on = threading.Event()
    commit = EventStore.write
    monkeypatch.setattr(EventStore, "write", lambda store, events: go_on.wait(10) and commit(store, events))

    async def body() -> None:
        bench = Bench(tmp_path)
        bench.publish(*(f"t.n{number}" for number in range(6)))
        go_on.set()
        await bench.until_count(4)
        bench.publish("t.later")
        await bench.until_count(5)
        assert bench.ids() == [1, 2, 3, 4, 5]
        assert [event.topic for event in bench.handed_on] == ["t.n0", "t.n1", "t.n2", "t.n3", "t.later"]
        bench.log.close()

    on_loop(body)


def test_a_file_that_cannot_be_used_costs_its_events_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1_000)

    async def body() -> None:
        bench = Bench(tmp_path)
        assert bench.log.events_after(0) == []
        bench.publish("t.one")
        await bench.until_count(1)
        bench.log.close()

    on_loop(body)
    assert on_disk(tmp_path) == ["t.one"]


def test_what_a_full_disk_has_missed_is_written_at_the_end_where_there_is_room_again(tmp_path: Path) -> None:
    async def body() -> None:
        bench = Bench(tmp_path)
        bench.publish("t.one")
        await bench.until_count(1)
        with file_size_limit(1):
            bench.publish("t.two")
            await bench.until_count(2)
        bench.log.close()  # long before it would be tried again

    on_loop(body)
    assert on_disk(tmp_path) == ["t.one", "t.two"]


def test_a_refused_topic_takes_no_id() -> None:
    async def body() -> None:
        bench = Bench(None)
        with pytest.raises(InvalidTopic):
            bench.publish("T")
        bench.publish("t")
        await bench.until_count(1)
        assert bench.ids() == [1]

    on_loop(body)
