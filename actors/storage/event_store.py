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

from .sqlite_files import move_aside

FILE_NAME: Final = "events.sqlite3"
UNREADABLE_NAME: Final = f"{FILE_NAME}.unreadable"
MEND_INTERVAL_S: Final = 30.0
_VERSION: Final = 1
_BUSY_S: Final = 1.0
"""How long an owner that is just ending may still hold the file."""
_ERRORS_OF_THE_DISK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM})
_ERRORS_OF_ANOTHER_OWNER: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

# A killed process loses nothing that was committed; a machine that loses power may lose the last moments (synchronous = NORMAL),
# and is promised no more. One owner at a time: two gateways that share a state directory must not mix their ids.
_SETTINGS: Final = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
)
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL,"
    " timestamp_ms INTEGER NOT NULL, source TEXT NOT NULL, sequence INTEGER NOT NULL)"
)


class _WrongVersion(sqlite3.DatabaseError):
    """The file was written by a gateway with another layout."""


class EventStore:
    """Keeps the newest `retention` events in a file. Methods block for as long as the disk takes, and raise nothing.

    say:     told in one line, with a level of `logging`, of what went wrong and what follows from it.
    loaded:  what the file held, ids ascending without holes.
    last_id: where ids go on. After a file that cannot be used this is the time of day in milliseconds, a number that no log has
             reached before: a client that comes back with an id of the lost file learns what it missed.
    """

    def __init__(self, state_path: Path | None, retention: int, say: Callable[[int, str], None]) -> None:
        self._path = None if state_path is None else state_path / FILE_NAME
        self._retention = retention
        self._say = say
        self._connection: sqlite3.Connection | None = None
        self._mend_at_s = 0.0
        self._told = ""
        self.loaded: list[StoredEvent] = []
        self.last_id = 0
        if self._path is not None:
            self._open_first(self._path)

    @property
    def is_durable(self) -> bool:
        """Whether events go to disk now."""
        return self._connection is not None

    def write(self, events: Sequence[StoredEvent]) -> bool:
        """Commit events and drop those beyond retention. False where they are not on disk but should be, see `mend`."""
        if self._connection is None or self._path is None:
            return self._path is None
        if not events:
            return True
        try:
            _insert(self._connection, events, self._retention)
        except sqlite3.Error as error:
            self._mend_at_s = time.monotonic() + (0.0 if self._fail(error, self._path) else MEND_INTERVAL_S)
            return False
        return True

    @property
    def wants_mending(self) -> bool:
        """Whether it is time to try again after a failure."""
        return self._path is not None and self._connection is None and time.monotonic() >= self._mend_at_s

    def mend(self, events: Sequence[StoredEvent]) -> None:
        """Try again, with all events that the log holds: the file may have missed some."""
        if self._path is None:
            return
        self._mend_at_s = time.monotonic() + MEND_INTERVAL_S
        try:
            connection = _open(self._path)
            self._connection = connection
            last_id = connection.execute("SELECT max(id) FROM events").fetchone()[0] or 0
            _insert(connection, [stored for stored in events if stored.event.id > last_id], self._retention)
        except (sqlite3.Error, OSError) as error:
            self._fail(error, self._path)
        else:
            self._told = ""
            self._say(logging.WARNING, f"events are kept in {self._path} again")

    def close(self) -> None:
        """The end: what is written after it goes nowhere."""
        self._path = None
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # ---- start and failure

    def _open_first(self, path: Path) -> None:
        for is_last_try in (False, True):
            try:
                self._connection = _open(path)
                self.loaded = _read(self._connection, self._retention)
                if not is_last_try:
                    self.last_id = self.loaded[-1].event.id if self.loaded else 0
                return
            except (sqlite3.Error, OSError) as error:
                self.loaded = []
                self.last_id = int(time.time() * 1000)
                self._mend_at_s = time.monotonic() + MEND_INTERVAL_S
                if not self._fail(error, path):
                    return

    def _fail(self, error: Exception, path: Path) -> bool:
        """Go on in memory; whether the file was moved aside, so that another try begins with a new one."""
        self._disconnect()
        if _code(error) in _ERRORS_OF_ANOTHER_OWNER:
            self._tell(f"another gateway keeps its events in {path}: those of this one are kept in memory only")
            return False
        self._tell(f"the event log {path} cannot be used ({error}): events are kept in memory only")
        return _code(error) not in _ERRORS_OF_THE_DISK and self._move_aside(path)

    def _tell(self, text: str) -> None:
        """Once, however often the same is tried."""
        if text != self._told:
            self._told = text
            self._say(logging.ERROR, text)

    def _move_aside(self, path: Path) -> bool:
        """Put the file where somebody can look at it; the one before is overwritten. False where even that fails."""
        try:
            aside = move_aside(path, UNREADABLE_NAME)
        except OSError as error:
            self._tell(f"{path} cannot be moved aside: {error.strerror}; events are kept in memory only")
            return False
        if aside is not None:
            self._tell(f"{path} was moved to {aside}; a new event log takes its place")
        return True


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise _WrongVersion(f"its layout is version {version}, this gateway writes version {_VERSION}")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


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
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("DELETE FROM events WHERE id <= ?", (events[-1].event.id - retention,))
        connection.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _code(error: Exception) -> int | None:
    """SQLite's primary result code; the low byte of an extended one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF
