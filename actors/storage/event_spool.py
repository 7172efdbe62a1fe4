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
_KEEP: Final = "INSERT INTO spool (spool, number, source, sequence, topic, payload, timestamp_ms) VALUES (?,?,?,?,?,?,?)"


@attrs.frozen
class SpooledEvent:
    """spool, number: as what the event is appended to the log, each time that is tried; numbers of one spool rise by one."""

    spool: str
    number: int
    event: UnstoredEvent = attrs.field(repr=False)

    @property
    def place(self) -> tuple[str, int]:
        return self.spool, self.number


class EventSpool:
    """Methods block for as long as the disk takes, and raise nothing.

    A start has a spool of its own: what an earlier one has left goes on under its own name. After a failure of the disk memory
    must do, until the file can be had again: then it is made what it would be without the failure.

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
        self._held: dict[tuple[str, int], SpooledEvent] = {}  # {place: what waits}, in order
        self._known_spools = {self._spool}  # of which nothing waits but what is held
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
        self._run(_KEEP, _rows(spooled))
        return spooled

    def forget(self, places: Iterable[tuple[str, int]]) -> None:
        """These, (spool, number), have come back from the log; those of other nodes are nothing to it."""
        gone = [held for place in places if (held := self._held.pop(place, None)) is not None]
        self._held_bytes -= sum(each.event.weight_bytes for each in gone)
        self._run(FORGET, [each.place for each in gone])

    def close(self) -> None:
        if self._file.is_wanted and not self._file.is_durable:  # after this nobody has them any more
            self._file.mend(self._catch_up)
        self._file.close()

    def _has_room(self, event: UnstoredEvent) -> bool:
        was_full = self._is_full
        self._is_full = len(self._held) >= self._most_events or self._held_bytes + event.weight_bytes > self._most_bytes
        if self._is_full and not was_full:
            text = "the log of the cluster takes nothing, and as many events wait as may: what is published now is lost"
            self._say(logging.ERROR, text)
        return not self._is_full

    def _hold(self, spooled: SpooledEvent) -> None:
        self._held[spooled.place] = spooled
        self._held_bytes += spooled.event.weight_bytes

    def _run(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """rows: whose change is made in memory already, so that a file that is mended has it."""
        if self._file.wants_mending:
            self._file.mend(self._catch_up)
        elif rows and self._file.is_durable:
            with suppress(sqlite3.Error), self._file.transaction() as connection:
                connection.executemany(statement, rows)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Rows that nobody has read, of one who had the file meanwhile, are left for the next start."""
        there = set(connection.execute("SELECT spool, number FROM spool"))
        gone = [(spool, number) for spool, number in there - self._held.keys() if spool in self._known_spools]
        connection.executemany(FORGET, gone)
        connection.executemany(_KEEP, _rows(each for place, each in self._held.items() if place not in there))

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
        self._held, self._held_bytes = {}, 0  # of a file that was read before and then moved aside
        for each in self.loaded:
            self._hold(each)
        self._known_spools |= {each.spool for each in self.loaded}


def _rows(spooled: Iterable[SpooledEvent]) -> list[tuple[object, ...]]:
    return [(*each.place, *attrs.astuple(each.event)) for each in spooled]
