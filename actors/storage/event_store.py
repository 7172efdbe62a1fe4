"""The event log on disk: SQLite in the state directory. It never stands in the way of serving: without a disk, memory must do."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from mcp_gateway.actors.messages.event_log import StoredEvent
from mcp_gateway.transports.protocol.topics.topic_log import Event, InvalidTopic, check_topic

from .sqlite_file import SqliteFile
from .unwritten_mark import UnwrittenMark

FILE_NAME: Final = "events.sqlite3"
_VERSION: Final = 1
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,"
    " timestamp_ms INTEGER NOT NULL, source TEXT NOT NULL, sequence INTEGER NOT NULL)"
)


class EventStore:
    """Keeps the newest `retention` events in a file. Methods block for as long as the disk takes, and raise nothing.

    One owner at a time: two gateways that share a state directory must not mix their ids.

    say:     told in one line, with a level of `logging`, of what went wrong and what follows from it.
    loaded:  what the file held, ids ascending without holes.
    has_lost: whether it lacked events that were given out before.
    last_id: where ids go on. After a file that cannot be used, or has lost events, this is the time of day in milliseconds, a
             number that no log has reached before: a client that comes back with an id of then learns what it missed.
    """

    def __init__(self, state_path: Path | None, retention: int, say: Callable[[int, str], None]) -> None:
        path = None if state_path is None else state_path / FILE_NAME
        self._retention = retention
        self._file = SqliteFile(path, _VERSION, (_TABLE,), exclusive=True, contents="events", say=say)
        self._say = say
        self.loaded: list[StoredEvent] = []
        self.has_lost = False
        self._file.open(self._load)
        self._mark = None if path is None or not self._file.is_durable else UnwrittenMark(path)
        if self._mark is not None:
            self._leave_what_has_a_hole(self._mark)
        if not self._file.is_durable:
            self.loaded = []
        self.last_id = self.loaded[-1].event.id if self.loaded else 0
        if self._file.has_failed or self.has_lost:
            self.last_id = int(time.time() * 1000)

    def _leave_what_has_a_hole(self, mark: UnwrittenMark) -> None:
        """Begin anew where the file lacks events that clients may have seen: what comes now cannot follow what it has."""
        self.has_lost = mark.is_set
        if self.has_lost:
            self._say(logging.ERROR, f"{FILE_NAME} lacks events that a full disk did not take: what it has is left out")
            self.loaded = []
            with suppress(sqlite3.Error), self._file.transaction() as connection:
                connection.execute("DELETE FROM events")
        if self._file.is_durable:
            mark.clear()

    @property
    def is_durable(self) -> bool:
        """Whether events go to disk now."""
        return self._file.is_durable

    def write(self, events: Sequence[StoredEvent]) -> bool:
        """Commit events and drop those beyond retention. False where they are not on disk but should be, see `mend`."""
        if not self._file.is_durable or not events:
            return self._file.is_durable or not self._file.is_wanted
        try:
            with self._file.transaction() as connection:
                _insert(connection, events, self._retention)
        except sqlite3.Error:
            if self._mark is not None:
                self._mark.set()
            return False
        return True

    @property
    def lacks_events(self) -> bool:
        """Whether events that were given out are in memory alone."""
        return self._file.is_wanted and not self._file.is_durable

    @property
    def wants_mending(self) -> bool:
        """Whether it is time to try again after a failure."""
        return self._file.wants_mending

    def mend(self, events: Sequence[StoredEvent]) -> None:
        """Try again, with all events that the log holds: the file may have missed some."""

        def write_missed(connection: sqlite3.Connection) -> None:
            last_id = connection.execute("SELECT max(id) FROM events").fetchone()[0] or 0
            _insert(connection, [stored for stored in events if stored.event.id > last_id], self._retention)

        self._file.mend(write_missed)
        if self._file.is_durable and self._mark is not None:
            self._mark.clear()

    def close(self) -> None:
        """The end: what is written after it goes nowhere."""
        self._file.close()

    def _load(self, connection: sqlite3.Connection) -> None:
        self.loaded = _read(connection, self._retention)


def _read(connection: sqlite3.Connection, retention: int) -> list[StoredEvent]:
    """The newest events without a hole between them; older ones would be out of reach of readers."""
    rows = connection.execute(
        "SELECT id, topic, payload, timestamp_ms, source, sequence FROM events ORDER BY id DESC LIMIT ?", (retention,)
    )
    found: list[StoredEvent] = []
    for event_id, topic, payload, timestamp_ms, source, sequence in rows:
        if found and event_id != found[-1].event.id - 1:
            break
        event = Event(id=event_id, topic=topic, payload_json=payload, timestamp_ms=timestamp_ms)
        if not _is_sound(event):
            raise sqlite3.DatabaseError(f"event {event_id} is damaged")
        found.append(StoredEvent(event=event, source=source, sequence=sequence))
    found.reverse()
    return found


def _is_sound(event: Event) -> bool:
    """SQLite notices damage to its own structure, not to what stands in a row."""
    try:
        check_topic(event.topic)
        msgspec.json.decode(event.payload_json, type=dict[str, msgspec.Raw])
    except (InvalidTopic, msgspec.DecodeError, TypeError, ValueError):
        return False
    return True


def _insert(connection: sqlite3.Connection, events: Sequence[StoredEvent], retention: int) -> None:
    if not events:
        return
    rows = [
        (each.event.id, each.event.topic, each.event.payload_json, each.event.timestamp_ms, each.source, each.sequence)
        for each in events
    ]
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.execute("DELETE FROM events WHERE id <= ?", (events[-1].event.id - retention,))
