"""The sessions of a node on disk: SQLite in the state directory, which all cells read and write.

A session whose row is there lives: it survives the death of its cell and of the whole gateway, and what changed since its id was
sealed with it. One whose row is gone was ended, has expired, or made room for another. Without a disk, memory must do.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mcp_gateway.transports.protocol.sealed.session import SessionState

from .sqlite_files import move_aside

FILE_NAME: Final = "sessions.sqlite3"
UNREADABLE_NAME: Final = f"{FILE_NAME}.unreadable"
_VERSION: Final = 1
_BUSY_S: Final = 1.0
"""How long one cell waits for another's transaction; they are short."""

# A killed process loses nothing that was committed; a machine that loses power may lose the last moments.
_SETTINGS: Final = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, state BLOB NOT NULL, used_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_use ON sessions (used_ms)",
    "CREATE TABLE IF NOT EXISTS journal (began_ms INTEGER NOT NULL)",
)

_logger = logging.getLogger(__name__)
_decode = msgspec.msgpack.Decoder(SessionState).decode
_encode = msgspec.msgpack.encode


class SessionJournal:
    """Methods block for as long as the disk takes, well below a millisecond, and raise nothing. Times: ms since the epoch.

    began_ms: when the file was made; of sessions that are older it knows only those it has.
    """

    def __init__(self, state_path: Path | None, now_ms: int) -> None:
        self._missed_count = 0
        self._path = None if state_path is None else state_path / FILE_NAME
        self._connection: sqlite3.Connection | None = None
        self.began_ms = now_ms
        if self._path is not None:
            self._open(self._path, now_ms)

    @property
    def is_durable(self) -> bool:
        """Whether sessions are on disk, so that a missing one means something."""
        return self._connection is not None

    def insert(self, state: SessionState, now_ms: int, most_sessions: int) -> list[SessionState]:
        """Keep a new session; gives those that had to make room, which were not used for the longest time."""
        rows = self._run(
            (
                ("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", (state.key, _encode(state), now_ms)),
                (
                    "DELETE FROM sessions WHERE key IN"
                    " (SELECT key FROM sessions ORDER BY used_ms DESC, key = ? DESC LIMIT -1 OFFSET ?) RETURNING state",
                    (state.key, most_sessions),
                ),
            )
        )
        return _states(rows)

    def replace(self, state: SessionState) -> bool:
        """Keep a new state of a session that lives. False where the file was busy: it holds the old one."""
        missed_count = self._missed_count
        self._run((("UPDATE sessions SET state = ? WHERE key = ?", (_encode(state), state.key)),))
        return self._missed_count == missed_count

    def read(self, key: str, used_since_ms: int) -> SessionState | None:
        """The newest state of a session that lives and was used since then."""
        rows = self._run((("SELECT state FROM sessions WHERE key = ? AND used_ms >= ?", (key, used_since_ms)),))
        states = _states(rows)
        return states[0] if states else None

    def touch(self, keys: Iterable[str], now_ms: int) -> None:
        """Note that these sessions are in use."""
        rows = [(now_ms, key) for key in keys]
        if rows:
            self._run((("UPDATE sessions SET used_ms = max(used_ms, ?) WHERE key = ?", rows),))

    def delete(self, key: str) -> None:
        self._run((("DELETE FROM sessions WHERE key = ?", (key,)),))

    def expire(self, used_before_ms: int) -> list[SessionState]:
        """Drop the sessions that were not used since then, and give them. Each goes to one caller, whichever cell asks."""
        if self._connection is None:
            return []
        oldest = self._run((("SELECT key FROM sessions WHERE used_ms < ? LIMIT 1", (used_before_ms,)),))
        if not oldest:  # the usual case: nothing is written
            return []
        return _states(self._run((("DELETE FROM sessions WHERE used_ms < ? RETURNING state", (used_before_ms,)),)))

    def count(self) -> int:
        rows = self._run((("SELECT count(*) FROM sessions", ()),))
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    # ---- parts

    def _run(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[tuple[Any, ...]]:
        """Carry out the statements as one transaction; gives the rows of the last one."""
        connection = self._connection
        if connection is None:
            return []
        rows: list[tuple[Any, ...]] = []
        try:
            is_change = not statements[0][0].startswith("SELECT")
            if is_change:
                connection.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                if values and isinstance(values[0], tuple):
                    connection.executemany(statement, values)
                else:
                    rows = connection.execute(statement, values).fetchall()
            if is_change:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            self._fail(error)
            return []
        return rows

    def _fail(self, error: sqlite3.Error) -> None:
        """A busy file is one missed note; one that is broken is given up, and its sessions live on in their sealed ids."""
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            _logger.warning("the journal of sessions is busy: %s", error)
            self._missed_count += 1
            return
        _logger.error("the journal of sessions %s cannot be used (%s): sessions are kept in memory only", self._path, error)
        self.close()

    def _open(self, path: Path, now_ms: int) -> None:
        for is_last_try in (False, True):
            try:
                self._connection = _connect(path, now_ms)
                self.began_ms = self._connection.execute("SELECT min(began_ms) FROM journal").fetchone()[0]
                return
            except (sqlite3.Error, OSError) as error:
                _logger.error("the journal of sessions %s cannot be used: %s", path, error)
                if is_last_try or getattr(error, "sqlite_errorcode", None) not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    return
                with suppress(OSError):
                    aside = move_aside(path, UNREADABLE_NAME)
                    _logger.error("it was moved to %s; a new journal takes its place", aside)


def _connect(path: Path, now_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        for setting in _SETTINGS:
            connection.execute(setting)
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            raise sqlite3.NotSupportedError(f"its layout is version {version}, this gateway writes version {_VERSION}")
        for table in _TABLES:
            connection.execute(table)
        connection.execute("INSERT INTO journal SELECT ? WHERE NOT EXISTS (SELECT 1 FROM journal)", (now_ms,))
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _states(rows: Sequence[tuple[Any, ...]]) -> list[SessionState]:
    states = []
    for (content,) in rows:
        with suppress(msgspec.DecodeError):  # a row that cannot be read is no session
            states.append(_decode(content))
    return states
