"""The event log between cells that the test plays: who is told what, and who is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.actors.events.event_log import RETRY_S, EventLog
from mcp_gateway.actors.events.event_outbox import EventOutbox
from mcp_gateway.actors.messages.event_log import EventsDistributed, JoinEventLog, PublishEvents
from mcp_gateway.actors.messages.node import EventLogArguments
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from tests.doubles.actor_stage import Peer, Stage


class Bench:
    """A log, without a disk unless it is given one, and a cell that has joined it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state_path: Path | None = None) -> None:
        monkeypatch.setattr("mcp_gateway.actors.events.event_log.setproctitle", lambda _title: None)
        self.stage = Stage()
        self.stage.take_over_time(monkeypatch)
        arguments = EventLogArguments(state_path=state_path, retention_events=100, cell_count=1)
        self.address = self.stage.start(EventLog, {}, arguments, name="event-log")
        self.log: Any = self.stage.instance(self.address)
        self.outbox = EventOutbox("source")
        self.cell = self.join()

    def join(self) -> Peer:
        cell = self.stage.peer()
        join = JoinEventLog(
            cell_name="cell/0", source="source", last_event_id=0, recent_events=(), confirmed_sequence=0, unstored=()
        )
        cell.say(self.address, join)
        self.handled()
        return cell

    def publish(self) -> None:
        self.stage.tell(self.address, PublishEvents(events=(self.outbox.publish("t.x", {}, 0),)))
        self.handled()

    def handled(self) -> None:
        """As at the end of each batch of mail; in one process nobody calls it."""
        self.log.on_batch_handled()

    def told(self) -> list[list[int]]:
        """Ids of what the cell was sent since the last look."""
        return [[stored.event.id for stored in each.events] for each in self.cell.take(EventsDistributed)]

    def absent(self) -> None:
        """What the cell was sent has not reached it: its process was not there."""
        self.log.on_undeliverable(self.cell.address, self.cell.take(EventsDistributed), "dead target")

    def retry(self) -> None:
        self.stage.advance(RETRY_S)
        self.handled()


def on_loop(
    monkeypatch: pytest.MonkeyPatch, body: Callable[[Bench], Awaitable[None] | None], state_path: Path | None = None
) -> None:
    async def run() -> None:
        body(Bench(monkeypatch, state_path))

    asyncio.run(run())


def test_a_cell_that_was_not_there_once_gets_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(bench: Bench) -> None:
        assert bench.told() == [[]]
        bench.publish()
        bench.absent()
        bench.publish()
        assert bench.told() == [[2]]
        bench.retry()
        assert bench.told() == [[1, 2]]

    on_loop(monkeypatch, body)


def test_a_cell_learns_where_ids_go_on_after_a_file_that_could_not_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Else the first event would be a gap for whoever follows topics from now on."""
    (tmp_path / "events.sqlite3").write_bytes(b"rubbish" * 1_000)

    def body(bench: Bench) -> None:
        (told,) = bench.cell.of(EventsDistributed)
        assert bench.outbox.take(told) == []
        assert bench.outbox.last_event_id > 1_600_000_000_000
        assert bench.outbox.lost == LostIds.of_both(bench.outbox.last_event_id)
        bench.log.on_exit()

    on_loop(monkeypatch, body, tmp_path)


def test_parts_that_are_lost_in_one_moment_are_one_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(bench: Bench) -> None:
        for _ in range(5):
            bench.publish()
            bench.absent()
        bench.retry()
        assert bench.told() == [[1, 2, 3, 4, 5]]

    on_loop(monkeypatch, body)


def test_a_cell_that_stays_away_is_given_up_until_it_joins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(bench: Bench) -> None:
        bench.publish()
        for _ in range(5):
            bench.absent()
            bench.retry()
        bench.publish()
        assert bench.told() == []
        bench.cell = bench.join()
        assert bench.told() == [[1, 2]]

    on_loop(monkeypatch, body)


def test_a_cell_that_joins_after_a_flood_is_told_part_by_part_what_there_is_and_whose_the_missing_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def body(bench: Bench) -> None:
        monkeypatch.setattr("mcp_gateway.actors.events.event_log.PAGE_BYTES", 400)
        topics = ["mcp.a", *["client.flood"] * 102]
        bench.stage.tell(bench.address, PublishEvents(events=tuple(bench.outbox.publish(each, {}, 0) for each in topics)))
        bench.handled()
        bench.cell = bench.join()
        parts = bench.cell.take(EventsDistributed)
        assert [each.events[0].id for each in parts] == [1, *range(4, 104)]
        assert [each.after_id for each in parts] == [0, 1, *range(4, 103)]
        assert {each.lost for each in parts} == {LostIds(of_clients=3)}
        joined = EventOutbox("joined", 100)
        assert None not in [joined.take(each) for each in parts]
        assert (joined.last_event_id, joined.lost) == (103, LostIds(of_clients=3))

    on_loop(monkeypatch, body)
