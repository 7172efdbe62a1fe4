"""The tasks that a node's cells run for their clients, on disk: SQLite in the state directory, which all cells read and write.

A task whose row has an end was over before its process was, and is still answered; one without died with it. Without a disk, or
where a row is missing, nothing is known: whoever asks is told that the task was lost.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.protocol.eras.tasks import KeptTask

from .sqlite_file import SqliteFile

FILE_NAME: Final = "tasks.sqlite3"
_VERSION: Final = 1
# Sizes are read from the index alone, however large the results are.
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS tasks (name TEXT PRIMARY KEY, holder TEXT NOT NULL, created_ms INTEGER NOT NULL,"
    " ttl_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, size INTEGER NOT NULL, status TEXT NOT NULL, result BLOB NOT NULL,"
    " error BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_holder ON tasks (holder, created_ms, size)",
    "CREATE INDEX IF NOT EXISTS by_age ON tasks (created_ms, ttl_ms, size)",
)
_COLUMNS: Final = ("created_ms", "ttl_ms", "ended_ms", "status", "result", "error")
_EXCESS: Final = "SELECT count(*) > ?, coalesce(sum(size), 0) > ? FROM tasks"
_OF_HOLDER: Final = "WHERE holder = ?"
_DELETE_OLDEST: Final = (
    "DELETE FROM tasks WHERE name IN (SELECT name FROM"
    " (SELECT name, count(*) OVER newest AS number, sum(size) OVER newest AS bytes FROM tasks {}"
    " WINDOW newest AS (ORDER BY created_ms DESC, name)) WHERE number > ? OR bytes > ?)"
)

_logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class JournalLimits:
    """What the tasks of a node may take on disk, running ones and those that are over; largest_share: of it, one address."""

    tasks: int = 4_000
    result_bytes: int = 134_217_728
    largest_share: float = 0.25


class TaskJournal:
    """Implements `bridge_site.TaskRecords`. Methods block for as long as the disk takes, and raise nothing."""

    def __init__(self, state_path: Path | None, limits: JournalLimits | None = None) -> None:
        path = None if state_path is None else state_path / FILE_NAME
        self._limits = limits or JournalLimits()
        self._file = SqliteFile(path, _VERSION, _TABLES, exclusive=False, contents="tasks", say=_logger.log)
        self._file.open(_nothing)

    def begin(self, name: str, holder: str, task: KeptTask) -> None:
        """A task begins. What is past its time goes, and what there is no room for: of this holder, or the oldest of all."""
        expired = "DELETE FROM tasks WHERE created_ms + ttl_ms < ?", (task.created_ms,)
        row = (name, holder, task.created_ms, task.ttl_ms, 0, 0, task.status.value, b"", b"")
        self._write(holder, expired, ("INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row))

    def finish(self, name: str, holder: str, task: KeptTask) -> None:
        """It is over; one that has made room for others meanwhile stays away."""
        size = len(task.result) + len(task.error)
        values = (task.ended_ms, size, task.status.value, task.result, task.error, name)
        statement = "UPDATE tasks SET ended_ms = ?, size = ?, status = ?, result = ?, error = ? WHERE name = ?"
        self._write(holder, (statement, values))

    def find(self, name: str) -> KeptTask | None:
        """A task that began, whether it is over or not."""
        if not self._file.is_durable:
            return None
        try:
            with self._file.transaction(writes=False) as connection:
                row = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM tasks WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else _read(row)

    def forget(self, name: str) -> None:
        self._write("", ("DELETE FROM tasks WHERE name = ?", (name,)))

    def close(self) -> None:
        self._file.close()

    def _write(self, holder: str, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """Carry these out, and make room. A task that the file misses is one that was lost, when its process is."""
        if self._file.wants_mending:
            self._file.mend(_nothing)
        if not self._file.is_durable:
            return
        try:
            with self._file.transaction() as connection:
                for statement, values in statements:
                    connection.execute(statement, values)
                if holder:
                    self._make_room(connection, _OF_HOLDER, (holder,), self._limits.largest_share)
                self._make_room(connection, "", (), 1.0)
        except sqlite3.Error as error:
            _logger.debug("a task is not written: %s", error)

    def _make_room(self, connection: sqlite3.Connection, where: str, values: tuple[str, ...], share: float) -> None:
        most = int(self._limits.tasks * share), int(self._limits.result_bytes * share)
        if any(connection.execute(f"{_EXCESS} {where}", (*most, *values)).fetchone()):
            connection.execute(_DELETE_OLDEST.format(where), (*values, *most))


def _nothing(connection: sqlite3.Connection) -> None:
    """What the file has missed is not known any more."""


def _read(row: tuple[Any, ...]) -> KeptTask | None:
    """None for a row that cannot be read, or would give clients what is no JSON: a file that somebody has changed."""
    try:
        task = msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), KeptTask)
        for text in filter(None, (task.result, task.error)):
            msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return task
