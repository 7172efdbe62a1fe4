"""What clients have used of their day, on disk: SQLite in the state directory, which all cells of a node add to and read, and in
a cluster its member, too, which puts beside it what the other nodes have counted.

It has the counts of one day, that of the newest report. Clients are told apart by names that do not say who they are. Without a
disk, each cell goes on with what it knows.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from .sqlite_file import SqliteFile

FILE_NAME: Final = "quotas.sqlite3"
MOST_ROWS: Final = 100_000
"""Clients that are counted; beyond, a tenth of them begins anew: those who have used least."""

_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS uses (client TEXT, node TEXT, used INTEGER NOT NULL, revision INTEGER NOT NULL,"
    " PRIMARY KEY (client, node)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_revision ON uses (revision)",
    "CREATE TABLE IF NOT EXISTS journal (day INTEGER NOT NULL, revision INTEGER NOT NULL, held INTEGER NOT NULL)",
    "CREATE TRIGGER IF NOT EXISTS counted AFTER INSERT ON uses BEGIN UPDATE journal SET held = held + 1; END",
    "CREATE TRIGGER IF NOT EXISTS forgotten AFTER DELETE ON uses BEGIN UPDATE journal SET held = held - 1; END",
)
_ADD: Final = (
    "INSERT INTO uses VALUES (?, ?, ?, ?) ON CONFLICT (client, node)"
    " DO UPDATE SET used = used + excluded.used, revision = excluded.revision"
)
_RAISE: Final = (
    "INSERT INTO uses VALUES (?, ?, ?, ?) ON CONFLICT (client, node)"
    " DO UPDATE SET used = excluded.used, revision = excluded.revision WHERE excluded.used > used"
)
_NEXT_REVISION: Final = "UPDATE journal SET revision = revision + 1 RETURNING day, revision"
_FORGET_LEAST: Final = "DELETE FROM uses WHERE (client, node) IN (SELECT client, node FROM uses ORDER BY used LIMIT ?)"
_CHANGED: Final = (
    "SELECT client, sum(used) FROM uses WHERE client IN (SELECT client FROM uses WHERE revision > ?)"
    " GROUP BY client ORDER BY 2 DESC LIMIT ?"
)

_OWN: Final = "SELECT client, used FROM uses WHERE node = ? AND revision > ?"

_logger = logging.getLogger(__name__)


class QuotaFile:
    """Methods block for as long as the disk takes, and raise nothing. day: as `daily_quota.day_of` counts.

    node: whose counts `add` adds to; "" outside of a cluster.
    """

    def __init__(self, state_path: Path, node: str, most_rows: int = MOST_ROWS) -> None:
        self._node = node
        self._most_rows = most_rows
        self._read = (-1, 0)  # (day, revision) up to which `news` has told
        path = state_path / FILE_NAME
        self._file = SqliteFile(path, _VERSION, _TABLES, exclusive=False, contents="daily quotas", say=_logger.log)
        self._file.open(_begin)

    def add(self, day: int, uses: Mapping[str, int]) -> bool:
        """Count these requests, {client: how many}; False where the file has missed it, and they are to come again.

        Those of the day before the newest are of no use any more. A clock that was set back further begins its day anew.
        """
        return not uses or self._count(day, _ADD, self._node, uses)

    def take(self, day: int, node: str, counts: Mapping[str, int]) -> None:
        """Another node has counted so much that day, {client: requests}; less than it has said before says nothing."""
        self._count(day, _RAISE, node, counts)

    def own(self, day: int, after: int) -> tuple[int, dict[str, int]]:
        """(revision, what this node has counted that day of the clients for whom that has changed after this revision)."""
        try:
            with self._transaction(writes=False) as connection:
                newest, revision = connection.execute("SELECT day, revision FROM journal").fetchone()
                # A lower revision than before is that of another file.
                values = (self._node, after if after <= revision else 0)
                return revision, dict(connection.execute(_OWN, values)) if newest == day else {}
        except sqlite3.Error:
            return 0, {}

    def news(self, day: int, most: int) -> dict[str, int]:
        """What all have counted that day, {client: requests}: first of all clients, then of those for whom it has changed.

        most: of them, those who have used most.
        """
        try:
            with self._transaction(writes=False) as connection:
                newest, revision = connection.execute("SELECT day, revision FROM journal").fetchone()
                if newest != day:
                    return {}
                known_day, known = self._read
                # A lower revision than before is that of another file.
                after = known if known_day == day and known <= revision else 0
                rows = connection.execute(_CHANGED, (after, most)).fetchall()
        except sqlite3.Error:
            return {}
        self._read = (day, revision)
        return dict(rows)

    def close(self) -> None:
        self._file.close()

    def _count(self, day: int, statement: str, node: str, counts: Mapping[str, int]) -> bool:
        try:
            with self._transaction(writes=True) as connection:
                newest, revision = connection.execute(_NEXT_REVISION).fetchone()
                if day == newest - 1:
                    return True
                if day != newest:
                    connection.execute("DELETE FROM uses")
                    connection.execute("UPDATE journal SET day = ?", (day,))
                connection.executemany(statement, [(client, node, count, revision) for client, count in counts.items()])
                self._make_room(connection)
        except sqlite3.Error:
            return False
        return True

    def _transaction(self, *, writes: bool) -> AbstractContextManager[sqlite3.Connection]:
        """Raises: sqlite3.Error, as `SqliteFile.transaction`."""
        if self._file.wants_mending:
            self._file.mend(_begin)
        return self._file.transaction(writes=writes)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        (held,) = connection.execute("SELECT held FROM journal").fetchone()
        if held > self._most_rows:
            connection.execute(_FORGET_LEAST, (held - self._most_rows + self._most_rows // 10,))


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO journal SELECT -1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM journal)")
