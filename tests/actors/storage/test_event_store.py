"""The event log on disk: what was committed is read back, and a file that is broken, locked or full never stands in the way."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mcp_gateway.actors.messages.event_log import StoredEvent
from mcp_gateway.actors.storage import sqlite_file
from mcp_gateway.actors.storage.event_store import FILE_NAME, EventStore
from mcp_gateway.actors.storage.sqlite_file import UNREADABLE_SUFFIX
from mcp_gateway.actors.storage.unwritten_mark import SUFFIX
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event
from tests.doubles.full_disk import file_size_limit

UNREADABLE_NAME = FILE_NAME + UNREADABLE_SUFFIX


def event(event_id: int, *, text: str = "", topic: str = "client.a") -> StoredEvent:
    logged = Event(id=event_id, topic=topic, payload_json=b'{"text":"%b"}' % text.encode(), timestamp_ms=event_id * 10)
    return StoredEvent(event=logged, source="cell", sequence=event_id)


def events(first_id: int, last_id: int) -> list[StoredEvent]:
    return [event(event_id) for event_id in range(first_id, last_id + 1)]


class Bench:
    """Opens stores in one directory, and keeps what they said."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self._stores: list[EventStore] = []

    def open(self, retention: int = 100) -> EventStore:
        self._stores.append(EventStore(self.directory, retention, self._say))
        return self._stores[-1]

    def _say(self, level: int, text: str) -> None:
        assert level in (logging.WARNING, logging.ERROR)
        self.said.append(text)

    def only_saying(self, text: str) -> None:
        assert any(text in each for each in self.said), self.said

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def fill(self, last_id: int) -> None:
        store = self.open()
        store.write(events(1, last_id))
        store.close()


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


# ---- what is kept


def test_what_was_written_is_read_back_as_it_was(bench: Bench) -> None:
    store = bench.open()
    assert (store.loaded, store.last_id) == ([], 0)
    assert store.write(events(1, 3))
    assert store.write([event(4, text="ü\u2028")])
    store.close()
    again = bench.open()
    assert (again.loaded, again.last_id) == ([*events(1, 3), event(4, text="ü\u2028")], 4)
    assert bench.said == []


def test_at_most_the_retention_is_kept_on_disk_as_well(bench: Bench) -> None:
    store = bench.open(retention=10)
    for first_id in (1, 8, 15):
        store.write(events(first_id, first_id + 6))
    store.close()
    with database(bench.directory / FILE_NAME) as connection:
        assert connection.execute("SELECT count(*), min(id) FROM events").fetchone() == (10, 12)
    assert bench.open(retention=4).loaded == events(18, 21)


def test_events_before_a_hole_are_left_out(bench: Bench) -> None:
    store = bench.open()
    store.write([*events(1, 3), *events(7, 9)])
    store.close()
    assert bench.open().loaded == events(7, 9)


def owns(*ids: int) -> list[StoredEvent]:
    """Events of the gateway."""
    return [event(event_id, topic="mcp.a") for event_id in ids]


@pytest.mark.parametrize("at_once", [1, 7, 500])
def test_a_flood_of_clients_leaves_the_gateways_own_history_on_disk(bench: Bench, at_once: int) -> None:
    store = bench.open(retention=10)
    flood = [*owns(1, 2), *events(3, 400), *owns(401)]
    for start in range(0, len(flood), at_once):
        assert store.write(flood[start : start + at_once])
    store.close()
    again = bench.open(retention=10)
    assert again.loaded == [*owns(1, 2), *events(391, 400), *owns(401)]
    assert (again.lost, again.last_id) == (LostIds(of_clients=390), 401)
    assert again.write(owns(*range(402, 420)))
    again.close()
    again = bench.open(retention=10)
    assert again.lost == LostIds(of_gateway=409, of_clients=390)
    assert again.loaded == [*events(391, 400), *owns(*range(410, 420))]
    assert bench.said == []


@pytest.mark.parametrize(("retention", "lost"), [(3, NOTHING_LOST), (2, LostIds(of_gateway=1, of_clients=2))])
def test_a_retention_that_was_lowered_holds_from_the_start_on(bench: Bench, retention: int, lost: LostIds) -> None:
    store = bench.open(retention=3)
    store.write([*owns(1), *events(2, 2), *owns(3, 4), *events(5, 6)])
    store.close()
    again = bench.open(retention=retention)
    assert (len(again.loaded), again.lost) == (2 * retention, lost)
    again.close()
    with database(bench.directory / FILE_NAME) as connection:
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (2 * retention,)


def test_what_the_log_has_lost_is_lost_on_disk_as_well(bench: Bench) -> None:
    """As where two logs died before either had reached all cells: nobody knows what the ids in between were."""
    store = bench.open()
    store.write([*owns(1), *events(2, 3)])
    assert store.write([*owns(7), *events(9, 9)], LostIds(of_gateway=6, of_clients=8))
    store.close()
    again = bench.open()
    assert (again.loaded, again.lost) == ([*owns(7), *events(9, 9)], LostIds(of_gateway=6, of_clients=8))


def test_what_the_file_has_missed_and_the_log_has_no_more_is_known_as_lost_once_it_is_mended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    store = bench.open(retention=3)
    assert store.write([*owns(1), *events(2, 3)])
    with file_size_limit(100_000):
        assert not store.write([event(4, text="x" * 300_000)])
    store.mend([*owns(1, 40), *events(50, 52)], LostIds(of_clients=49))
    assert store.is_durable
    store.close()
    again = bench.open(retention=3)
    assert (again.loaded, again.lost) == ([*owns(1, 40), *events(50, 52)], LostIds(of_clients=49))


def as_version_1_wrote(path: Path, stored: list[StoredEvent]) -> None:
    with database(path) as connection:
        connection.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,"
            " timestamp_ms INTEGER NOT NULL, source TEXT NOT NULL, sequence INTEGER NOT NULL)"
        )
        rows = [(e.id, e.topic, e.event.payload_json, e.event.timestamp_ms, e.source, e.sequence) for e in stored]
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("PRAGMA user_version = 1")


@pytest.mark.parametrize(("first_id", "lost"), [(1, NOTHING_LOST), (40, LostIds.of_both(39))])
def test_a_file_of_before_the_namespaces_is_taken_with_all_that_it_holds(bench: Bench, first_id: int, lost: LostIds) -> None:
    old = [*owns(first_id), *events(first_id + 1, first_id + 5), *owns(first_id + 6)]
    as_version_1_wrote(bench.directory / FILE_NAME, old)
    store = bench.open()
    assert (store.loaded, store.lost, store.last_id) == (old, lost, first_id + 6)
    assert store.write(events(first_id + 7, first_id + 7))
    store.close()
    assert bench.open().loaded == [*old, *events(first_id + 7, first_id + 7)]
    assert bench.said == []
    assert not (bench.directory / UNREADABLE_NAME).exists()


def test_what_it_says_of_lost_events_is_checked_as_well(bench: Bench) -> None:
    bench.fill(3)
    with database(bench.directory / FILE_NAME) as connection:
        connection.execute("UPDATE namespaces SET lost_id = 'x'")
    assert bench.open().loaded == []
    bench.only_saying("is damaged")


def test_without_a_directory_nothing_is_kept_and_nothing_said() -> None:
    said: list[str] = []
    store = EventStore(None, 10, lambda _, text: said.append(text))
    assert store.write(events(1, 3))
    assert (store.is_durable, store.wants_mending, store.loaded, store.last_id, said) == (False, False, [], 0, [])
    store.mend(events(1, 3))
    store.close()


def test_a_writer_that_is_killed_between_two_commits_loses_nothing_that_was_committed(bench: Bench) -> None:
    program = """
import sys
from pathlib import Path
from mcp_gateway.actors.storage.event_store import EventStore
from mcp_gateway.actors.messages.event_log import StoredEvent
from mcp_gateway.transports.protocol.topics.topic_log import Event
store = EventStore(Path(sys.argv[1]), 100_000, print)
for number in range(1, 100_000):
    logged = Event(id=number, topic="client.a", payload_json=b'{"text":""}', timestamp_ms=number * 10)
    store.write([StoredEvent(event=logged, source="cell", sequence=number)])
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program, str(bench.directory)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        committed = 0
        for line in writer.stdout:
            committed = int(line)
            if committed == 500:
                writer.send_signal(signal.SIGKILL)
    store = bench.open(retention=100_000)
    assert store.last_id >= committed >= 500
    assert store.loaded == events(1, store.last_id)
    assert bench.said == []


# ---- files that cannot be used


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damaged_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    with database(path) as connection:
        connection.execute("PRAGMA user_version = 77")


def of_another_layout(path: Path) -> None:
    with database(path) as connection:
        connection.execute("DROP TABLE events")
        connection.execute("CREATE TABLE events (x)")


def with_a_payload_that_is_no_json(path: Path) -> None:
    with database(path) as connection:
        connection.execute("UPDATE events SET payload = ? WHERE id = 250", (b'{"text"',))


def with_a_payload_that_is_no_object(path: Path) -> None:
    with database(path) as connection:
        connection.execute("UPDATE events SET payload = 5 WHERE id = 250")


def with_a_topic_that_is_none(path: Path) -> None:
    with database(path) as connection:
        connection.execute("UPDATE events SET topic = ? WHERE id = 250", ("A\nB",))


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        garbage,
        truncated,
        damaged_in_the_middle,
        of_another_version,
        of_another_layout,
        with_a_payload_that_is_no_json,
        with_a_payload_that_is_no_object,
        with_a_topic_that_is_none,
        a_directory,
    ],
)
def test_a_file_that_cannot_be_used_is_moved_aside_and_a_new_one_begun(bench: Bench, spoil: Callable[[Path], None]) -> None:
    bench.fill(300)
    spoil(bench.directory / FILE_NAME)
    store = bench.open()
    bench.only_saying("cannot be used")
    bench.only_saying(f"was moved to {bench.directory / UNREADABLE_NAME}")
    assert (bench.directory / UNREADABLE_NAME).exists()
    assert store.is_durable
    assert store.loaded == []
    # Ids go on above all that the lost file can have given.
    assert abs(store.last_id / 1000 - time.time()) < 60
    first_id = store.last_id + 1
    assert store.write(events(first_id, first_id + 1))
    store.close()
    assert bench.open().loaded == events(first_id, first_id + 1)


def test_an_empty_file_is_a_new_log(bench: Bench) -> None:
    (bench.directory / FILE_NAME).touch()
    assert (bench.open().is_durable, bench.said) == (True, [])


def test_only_the_last_broken_file_is_left_to_look_at(bench: Bench) -> None:
    for _ in range(3):
        garbage(bench.directory / FILE_NAME)
        bench.open().close()
    assert {path.name for path in bench.directory.iterdir()} == {FILE_NAME, FILE_NAME + SUFFIX, UNREADABLE_NAME}


def test_a_file_that_another_gateway_owns_is_left_to_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_S", 0.05)
    first = bench.open()
    first.write(events(1, 3))
    second = bench.open()
    bench.only_saying("another gateway keeps its events in")
    assert not second.is_durable
    assert not second.write(events(1, 9))
    assert not second.wants_mending
    first.close()
    assert bench.open().loaded == events(1, 3)


def test_where_nothing_can_be_written_events_stay_in_memory(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "not there")
    store = bench.open()
    bench.only_saying("memory only")
    assert not store.is_durable
    assert not store.write(events(1, 2))


# ---- failures while it runs


def test_a_full_disk_is_told_once_and_what_it_missed_is_written_when_it_has_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    store = bench.open()
    assert store.write(events(1, 3))
    large = [event(number, text="x" * 200_000) for number in range(4, 7)]
    with file_size_limit(300_000):
        assert not store.write(large)
        for _ in range(3):
            assert store.wants_mending
            store.mend([*events(1, 3), *large])
            assert not store.is_durable
    assert len(bench.said) == 1
    bench.only_saying("memory only")
    assert not (bench.directory / UNREADABLE_NAME).exists()
    store.mend([*events(1, 3), *large, event(7)])
    bench.only_saying("again")
    assert store.write([event(8)])
    store.close()
    assert bench.open().loaded == [*events(1, 3), *large, event(7), event(8)]


def test_events_that_a_full_disk_has_never_taken_are_a_gap_to_who_has_seen_them(bench: Bench) -> None:
    store = bench.open()
    assert store.write(events(1, 3))
    with file_size_limit(1):  # room for what is there already, for nothing else
        assert not store.write(events(4, 6))
        assert store.lacks_events
        store.close()
    before_ms = int(time.time() * 1000)
    again = bench.open()
    assert (again.loaded, again.has_lost) == ([], True)
    assert again.last_id >= before_ms  # no id of before is given again
    bench.only_saying("lacks events")
    first_id = again.last_id + 1
    assert again.write([event(first_id)])
    again.close()
    later = bench.open()
    assert (later.loaded, later.has_lost) == ([event(first_id)], False)


def test_events_that_were_written_after_all_are_no_gap(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    store = bench.open()
    with file_size_limit(1):
        assert not store.write(events(1, 2))
    store.mend(events(1, 2))
    assert not store.lacks_events
    store.close()
    again = bench.open()
    assert (again.loaded, again.has_lost, again.last_id) == (events(1, 2), False, 2)


def test_a_file_that_contradicts_the_log_is_replaced_by_one_with_all_that_the_log_holds(bench: Bench) -> None:
    store = bench.open()
    assert store.write(events(1, 3))
    assert not store.write([event(4), event(3, text="another")])  # somebody has changed the file
    assert store.wants_mending
    store.mend(events(1, 4))
    assert store.is_durable
    bench.only_saying("was moved to")
    bench.only_saying("again")
    store.close()
    assert bench.open().loaded == events(1, 4)


def test_nothing_is_written_after_the_end(bench: Bench) -> None:
    store = bench.open()
    store.close()
    store.write(events(1, 2))
    assert not store.wants_mending
    assert bench.open().loaded == []
