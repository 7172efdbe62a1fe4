"""Events that wait for the log of the cluster: SQLite in the state directory. Without a disk, memory must do."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

from mcp_gateway.actors.messages.event_log import UnstoredEvent

from .sqlite_file import SqliteFile

FILE_NAME: Final = "spool.sqlite3"
MOST_EVENTS: Final = 50_000
MOST_BYTES: Final = 67_108_864
"""That wait at a node, on disk and in memory: what comes while that is full is lost, as in the cells before it."""

_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS spool (id INTEGER PRIMARY KEY AUTOINCREMENT, spool TEXT NOT NULL, number INTEGER NOT NULL,"
    " source TEXT NOT NULL, sequence INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL,"
    " timestamp_ms INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_place ON spool (spool, number)",
)
FORGET: Final = "DELETE FROM spool WHERE spool = ? AND number = ?"


@attrs.frozen
class SpooledEvent:
    """spool, number: as what the event is appended to the log, each time that is tried; numbers of one spool rise by one."""

    spool: str
    number: int
    event: UnstoredEvent = attrs.field(repr=False)


class EventSpool:
    """Methods block for as long as the disk takes, and raise nothing.

    A start has a spool of its own: what an earlier one has left goes on under its own name.

    say:    told in one line, with a level of `logging`, of what went wrong.
    loaded: what earlier starts have left, oldest first.
    """

    def __init__(
        self,
        state_path: Path | None,
        say: Callable[[int, str], None],
        most_events: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        path = None if state_path is None else state_path / FILE_NAME
        self._file = SqliteFile(path, _VERSION, _TABLES, exclusive=True, contents="events for the cluster", say=say)
        self._spool = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._say = say
        self._most_events = most_events
        self._most_bytes = most_bytes
        self._weights: dict[tuple[str, int], int] = {}  # in bytes, of those that wait
        self._held_bytes = 0
        self._is_full = False
        self.loaded: list[SpooledEvent] = []
        self._file.open(self._load)

    def add(self, events: Sequence[UnstoredEvent]) -> list[SpooledEvent]:
        """Keep those for which there is room; what they are appended as."""
        spooled = []
        for event in events:
            if self._has_room(event):
                spooled.append(SpooledEvent(self._spool, next(self._numbers), event))
                self._hold(spooled[-1])
        rows = [(each.spool, each.number, *attrs.astuple(each.event)) for each in spooled]
        statement = "INSERT INTO spool (spool, number, source, sequence, topic, payload, timestamp_ms) VALUES (?,?,?,?,?,?,?)"
        self._run(statement, rows)
        return spooled

    def forget(self, places: Iterable[tuple[str, int]]) -> None:
        """These, (spool, number), have come back from the log; those of other nodes are nothing to it."""
        gone = [place for place in places if place in self._weights]
        for place in gone:
            self._held_bytes -= self._weights.pop(place, 0)
        self._run(FORGET, gone)

    def close(self) -> None:
        self._file.close()

    def _has_room(self, event: UnstoredEvent) -> bool:
        was_full = self._is_full
        self._is_full = len(self._weights) >= self._most_events or self._held_bytes + event.weight_bytes > self._most_bytes
        if self._is_full and not was_full:
            text = "the log of the cluster takes nothing, and as many events wait as may: what is published now is lost"
            self._say(logging.ERROR, text)
        return not self._is_full

    def _hold(self, spooled: SpooledEvent) -> None:
        weight = self._weights[spooled.spool, spooled.number] = spooled.event.weight_bytes
        self._held_bytes += weight

    def _run(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows and self._file.is_durable:
            with suppress(sqlite3.Error), self._file.transaction() as connection:
                connection.executemany(statement, rows)

    def _load(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT spool, number, source, sequence, topic, payload, timestamp_ms FROM spool ORDER BY id")
        self.loaded = [
            SpooledEvent(
                spool,
                number,
                UnstoredEvent(source=source, sequence=sequence, topic=topic, payload_json=payload, timestamp_ms=timestamp_ms),
            )
            for spool, number, source, sequence, topic, payload, timestamp_ms in rows
        ]
        for each in self.loaded:
            self._hold(each)
