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
from mcp_gateway.transports.protocol.topics.client_events import CLIENT_TOPICS
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds, is_of_clients
from mcp_gateway.transports.protocol.topics.topic_log import Event, InvalidTopic, check_topic

from .sqlite_file import SqliteFile
from .unwritten_mark import UnwrittenMark

FILE_NAME: Final = "events.sqlite3"
_VERSION: Final = 2
_CONTIGUOUS: Final = 1
"""A version that kept the newest of all: what it lacks is of both namespaces."""

# A namespace is told by the topic, so that rows stay as version 1 has written them; its index holds the ids alone.
_NAMESPACES: Final = {"gateway": f"topic NOT GLOB '{CLIENT_TOPICS}*'", "clients": f"topic GLOB '{CLIENT_TOPICS}*'"}
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,"
    " timestamp_ms INTEGER NOT NULL, source TEXT NOT NULL, sequence INTEGER NOT NULL)",
    # Counted here, because counting rows takes time, and in the transaction, because that may fail.
    "CREATE TABLE IF NOT EXISTS namespaces (name TEXT PRIMARY KEY, kept INTEGER NOT NULL, lost_id INTEGER NOT NULL)",
    *(f"CREATE INDEX IF NOT EXISTS of_{name} ON events (id) WHERE {condition}" for name, condition in _NAMESPACES.items()),
)


class EventStore:
    """Keeps the newest `retention` events of each namespace in a file. Methods block for as long as the disk takes, and raise
    nothing.

    One owner at a time: two gateways that share a state directory must not mix their ids.

    say:     told in one line, with a level of `logging`, of what went wrong and what follows from it.
    loaded:  what the file held, ids ascending; `lost` says of which namespace those are that are missing.
    has_lost: whether it lacked events that were given out before.
    last_id: where ids go on. After a file that cannot be used, or has lost events, this is the time of day in milliseconds, a
             number that no log has reached before: a client that comes back with an id of then learns what it missed.
    """

    def __init__(self, state_path: Path | None, retention: int, say: Callable[[int, str], None]) -> None:
        path = None if state_path is None else state_path / FILE_NAME
        self._retention = retention
        self._file = SqliteFile(path, _VERSION, _TABLES, exclusive=True, contents="events", say=say, oldest_version=_CONTIGUOUS)
        self._say = say
        self.loaded: list[StoredEvent] = []
        self.lost = NOTHING_LOST
        self.has_lost = False
        self._file.open(self._load)
        self._mark = None if path is None or not self._file.is_durable else UnwrittenMark(path)
        if self._mark is not None:
            self._leave_what_has_a_hole(self._mark)
        if not self._file.is_durable:
            self.loaded, self.lost = [], NOTHING_LOST
        self.last_id = self.loaded[-1].id if self.loaded else 0
        if self._file.has_failed or self.has_lost:
            self.last_id = int(time.time() * 1000)
            self.lost = LostIds.of_both(self.last_id)

    def _leave_what_has_a_hole(self, mark: UnwrittenMark) -> None:
        """Begin anew where the file lacks events that clients may have seen: what comes now cannot follow what it has."""
        self.has_lost = mark.is_set
        if self.has_lost:
            self._say(logging.ERROR, f"{FILE_NAME} lacks events that a full disk did not take: what it has is left out")
            self.loaded = []
            with suppress(sqlite3.Error), self._file.transaction() as connection:
                connection.execute("DELETE FROM events")
                _count(connection)
        if self._file.is_durable:
            mark.clear()

    @property
    def is_durable(self) -> bool:
        """Whether events go to disk now."""
        return self._file.is_durable

    def write(self, events: Sequence[StoredEvent], lost: LostIds = NOTHING_LOST) -> bool:
        """Commit events and drop those beyond retention. False where they are not on disk but should be, see `mend`.

        lost: what the log has lost before the last of these, beyond what retention has cost.
        """
        if not self._file.is_durable or not events:
            return self._file.is_durable or not self._file.is_wanted
        try:
            with self._file.transaction() as connection:
                _insert(connection, events)
                _retire(connection, lost, self._retention)
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

    def mend(self, events: Sequence[StoredEvent], lost: LostIds = NOTHING_LOST) -> None:
        """Try again, with all events that the log holds, and what it has lost: the file may have missed some."""

        def write_missed(connection: sqlite3.Connection) -> None:
            _count(connection)
            last_id = connection.execute("SELECT max(id) FROM events").fetchone()[0] or 0
            _insert(connection, [stored for stored in events if stored.event.id > last_id])
            _retire(connection, lost, self._retention)

        self._file.mend(write_missed)
        if self._file.is_durable and self._mark is not None:
            self._mark.clear()

    def close(self) -> None:
        """The end: what is written after it goes nowhere."""
        self._file.close()

    def _load(self, connection: sqlite3.Connection) -> None:
        _count(connection)
        _retire(connection, _unexplained(connection), self._retention)
        self.loaded = _read(connection)
        self.lost = _lost(connection)


def _count(connection: sqlite3.Connection) -> None:
    """Note how much there is of each namespace, in a file that may be new, or of before they were counted."""
    for name, condition in _NAMESPACES.items():
        (count,) = connection.execute(f"SELECT count(*) FROM events WHERE {condition}").fetchone()
        connection.execute(
            "INSERT INTO namespaces VALUES (?, ?, 0) ON CONFLICT DO UPDATE SET kept = excluded.kept", (name, count)
        )


def _lost(connection: sqlite3.Connection) -> LostIds:
    lost = dict(connection.execute("SELECT name, lost_id FROM namespaces"))
    if not all(isinstance(lost.get(name), int) for name in _NAMESPACES):
        raise sqlite3.DatabaseError("what it says of lost events is damaged")
    return LostIds(of_gateway=lost["gateway"], of_clients=lost["clients"])


def _unexplained(connection: sqlite3.Connection) -> LostIds:
    """What is missing of ids that count as lost in neither namespace is missing in both."""
    query = "SELECT id FROM events AS one WHERE NOT EXISTS (SELECT 1 FROM events WHERE id = one.id - 1) ORDER BY id DESC LIMIT 1"
    found = connection.execute(query).fetchone()
    missing_id = 0 if found is None else found[0] - 1
    return LostIds.of_both(missing_id) if missing_id > _lost(connection).highest else NOTHING_LOST


def _read(connection: sqlite3.Connection) -> list[StoredEvent]:
    rows = connection.execute("SELECT id, topic, payload, timestamp_ms, source, sequence FROM events ORDER BY id")
    found: list[StoredEvent] = []
    for event_id, topic, payload, timestamp_ms, source, sequence in rows:
        event = Event(id=event_id, topic=topic, payload_json=payload, timestamp_ms=timestamp_ms)
        if not _is_sound(event):
            raise sqlite3.DatabaseError(f"event {event_id} is damaged")
        found.append(StoredEvent(event=event, source=source, sequence=sequence))
    return found


def _is_sound(event: Event) -> bool:
    """SQLite notices damage to its own structure, not to what stands in a row."""
    try:
        check_topic(event.topic)
        msgspec.json.decode(event.payload_json, type=dict[str, msgspec.Raw])
    except (InvalidTopic, msgspec.DecodeError, TypeError, ValueError):
        return False
    return True


def _insert(connection: sqlite3.Connection, events: Sequence[StoredEvent]) -> None:
    rows = [
        (each.event.id, each.event.topic, each.event.payload_json, each.event.timestamp_ms, each.source, each.sequence)
        for each in events
    ]
    connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
    of_clients = sum(is_of_clients(each.topic) for each in events)
    counts = [(of_clients, "clients"), (len(events) - of_clients, "gateway")]
    connection.executemany("UPDATE namespaces SET kept = kept + ? WHERE name = ?", counts)


def _retire(connection: sqlite3.Connection, lost: LostIds, retention: int) -> None:
    """Drop what is lost, and of each namespace what is beyond retention, and note the highest id of it."""
    for name, lost_id in (("gateway", lost.of_gateway), ("clients", lost.of_clients)):
        condition = _NAMESPACES[name]
        kept, known_id = connection.execute("SELECT kept, lost_id FROM namespaces WHERE name = ?", (name,)).fetchone()
        if kept > retention:
            oldest = f"SELECT id FROM events WHERE {condition} ORDER BY id LIMIT ?"
            (beyond_id,) = connection.execute(f"SELECT max(id) FROM ({oldest})", (kept - retention,)).fetchone()
            lost_id = max(lost_id, beyond_id)
        if lost_id > known_id:
            count = connection.execute(f"DELETE FROM events WHERE {condition} AND id <= ?", (lost_id,)).rowcount
            update = "UPDATE namespaces SET kept = kept - ?, lost_id = ? WHERE name = ?"
            connection.execute(update, (count, lost_id, name))
