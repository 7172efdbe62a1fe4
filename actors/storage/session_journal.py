"""The sessions of a node on disk: SQLite in the state directory, which all cells read and write.

A session whose row is there lives: it survives the death of its cell and of the whole gateway, and what changed since its id was
sealed with it. One whose row is gone was ended, has expired, or made room for another. Without a disk, memory must do.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mcp_gateway.transports.protocol.sealed.session import SessionState

from .sqlite_file import SqliteFile

FILE_NAME: Final = "sessions.sqlite3"
_VERSION: Final = 2
# Counted by triggers: a new session costs the same however many there are.
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS sessions"
    " (key TEXT PRIMARY KEY, holder TEXT NOT NULL, state BLOB NOT NULL, used_ms INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_use ON sessions (used_ms)",
    "CREATE INDEX IF NOT EXISTS by_holder ON sessions (holder, used_ms)",
    "CREATE TABLE IF NOT EXISTS holders (holder TEXT PRIMARY KEY, held INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_count ON holders (held)",
    "CREATE TABLE IF NOT EXISTS journal (began_ms INTEGER NOT NULL, held INTEGER NOT NULL)",
    "CREATE TRIGGER IF NOT EXISTS session_opened AFTER INSERT ON sessions BEGIN"
    " UPDATE journal SET held = held + 1;"
    " INSERT INTO holders VALUES (NEW.holder, 1) ON CONFLICT (holder) DO UPDATE SET held = held + 1; END",
    "CREATE TRIGGER IF NOT EXISTS session_ended AFTER DELETE ON sessions BEGIN"
    " UPDATE journal SET held = held - 1;"
    " UPDATE holders SET held = held - 1 WHERE holder = OLD.holder;"
    " DELETE FROM holders WHERE holder = OLD.holder AND held = 0; END",
)

_INSERT: Final = (
    "INSERT INTO sessions VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state, used_ms = excluded.used_ms"
)
_DELETE: Final = "DELETE FROM sessions WHERE key = ?"
_EVICT: Final = "DELETE FROM sessions WHERE key = (SELECT key FROM sessions {} ORDER BY used_ms LIMIT 1) RETURNING state"
_EVICT_OF_HOLDER: Final = _EVICT.format("WHERE holder = ? AND key != ?")
_EVICT_OLDEST: Final = _EVICT.format("WHERE key != ?")
_MOST_MISSED: Final = 100_000

_logger = logging.getLogger(__name__)
_decode = msgspec.msgpack.Decoder(SessionState).decode
_encode = msgspec.msgpack.encode


class SessionJournal:
    """Methods block for as long as the disk takes, well below a millisecond, and raise nothing. Times: ms since the epoch.

    began_ms: when the file was made; of sessions that are older it knows only those it has.
    """

    def __init__(self, state_path: Path | None, now_ms: int) -> None:
        path = None if state_path is None else state_path / FILE_NAME
        self._file = SqliteFile(path, _VERSION, _TABLES, exclusive=False, contents="sessions", say=_logger.log)
        self._missed: dict[str, SessionState | None] = {}  # {key: opened, or None for ended} that the file does not know of
        self.began_ms = now_ms
        self._file.open(lambda connection: self._begin(connection, now_ms))

    @property
    def is_durable(self) -> bool:
        """Whether sessions are on disk, so that a missing one means something."""
        return self._file.is_durable

    def catch_up(self, now_ms: int) -> bool:
        """Try again where the file has failed, and write what it has missed; call it every second or so. False where it misses
        still more, so that there is no use in asking it for anything now.
        """
        if self._file.wants_mending:
            self._file.mend(lambda connection: self._begin(connection, now_ms))
        if self._missed and self._file.is_durable:
            opened = [(key, each.holder, _encode(each), now_ms) for key, each in self._missed.items() if each is not None]
            ended = [(key,) for key, state in self._missed.items() if state is None]
            if self._run((_INSERT, opened), (_DELETE, ended)) is None:
                return False
            self._missed.clear()
        return self._file.is_durable or not self._file.is_wanted

    def insert(
        self, state: SessionState, now_ms: int, most_sessions: int, most_of_holder: int | None = None
    ) -> list[SessionState]:
        """Keep a new session; gives those that had to make room, which were not used for the longest time.

        A holder past what one may have makes room itself; where there are too many in all, who holds most of them does.
        """
        if not self._file.is_durable:
            self._miss(state.key, state)
            return []
        evicted: list[tuple[Any, ...]] = []
        try:
            with self._file.transaction() as connection:
                connection.execute(_INSERT, (state.key, state.holder, _encode(state), now_ms))
                excess = _one(connection, "SELECT held FROM holders WHERE holder = ?", state.holder) - (
                    most_of_holder or most_sessions
                )
                for _ in range(excess):
                    evicted += connection.execute(_EVICT_OF_HOLDER, (state.holder, state.key))
                for _ in range(_one(connection, "SELECT held FROM journal") - most_sessions):
                    evicted += _evict_of_most(connection, state.key)
        except sqlite3.Error:
            self._miss(state.key, state)
            return []
        return _states(evicted)

    def forget(self, key: str) -> None:
        """The cell has no room for a session any more that the file has missed: it will not be written later."""
        if self._missed.get(key) is not None:
            del self._missed[key]

    def replace(self, state: SessionState) -> bool:
        """Keep a new state of a session that lives. False where the file has missed it: it holds the old one."""
        if self._missed.get(state.key) is not None:
            self._missed[state.key] = state
            return True
        rows = self._run(("UPDATE sessions SET state = ? WHERE key = ?", (_encode(state), state.key)))
        return rows is not None or not self._file.is_wanted

    def read(self, key: str, used_since_ms: int) -> SessionState | None:
        """The newest state of a session that lives and was used since then."""
        states = _states(self._select("SELECT state FROM sessions WHERE key = ? AND used_ms >= ?", key, used_since_ms))
        return states[0] if states else None

    def touch(self, used_ms: Mapping[str, int]) -> bool:
        """Note when each of these sessions was used, ms since the epoch. False where the file has missed it."""
        uses = [(when_ms, key) for key, when_ms in used_ms.items()]
        if not uses or not self._file.is_wanted:
            return True
        return self._run(("UPDATE sessions SET used_ms = max(used_ms, ?) WHERE key = ?", uses)) is not None

    def delete(self, key: str) -> None:
        self._missed.pop(key, None)
        if self._run((_DELETE, (key,))) is None:
            self._miss(key, None)

    def expire(self, used_before_ms: int) -> list[SessionState]:
        """Drop the sessions that were not used since then, and give them. Each goes to one caller, whichever cell asks."""
        if not self._select("SELECT key FROM sessions WHERE used_ms < ? LIMIT 1", used_before_ms):
            return []  # the usual case: nothing is written
        return _states(self._run(("DELETE FROM sessions WHERE used_ms < ? RETURNING state", (used_before_ms,))))

    def count(self) -> int:
        rows = self._select("SELECT held FROM journal")
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        self._file.close()

    # ---- parts

    def _miss(self, key: str, state: SessionState | None) -> None:
        if self._file.is_wanted:
            self._missed[key] = state
            if len(self._missed) > _MOST_MISSED:
                del self._missed[next(iter(self._missed))]

    def _begin(self, connection: sqlite3.Connection, now_ms: int) -> None:
        connection.execute("INSERT INTO journal SELECT ?, 0 WHERE NOT EXISTS (SELECT 1 FROM journal)", (now_ms,))
        self.began_ms = connection.execute("SELECT min(began_ms) FROM journal").fetchone()[0]

    def _select(self, statement: str, *values: object) -> list[tuple[Any, ...]] | None:
        return self._run((statement, values), writes=False)

    def _run(self, *statements: tuple[str, Sequence[Any]], writes: bool = True) -> list[tuple[Any, ...]] | None:
        """Carry out the statements as one transaction; the rows of the last one, None where the file has missed it.

        A statement with a list carries it out for each of its tuples.
        """
        if not self._file.is_durable:
            return None
        rows: list[tuple[Any, ...]] = []
        try:
            with self._file.transaction(writes=writes) as connection:
                for statement, values in statements:
                    if isinstance(values, list):
                        connection.executemany(statement, values)
                    else:
                        rows = connection.execute(statement, values).fetchall()
        except sqlite3.Error:
            return None
        return rows


def _evict_of_most(connection: sqlite3.Connection, newcomer: str) -> sqlite3.Cursor:
    """End the session longest unused of who holds most, or of all where nobody holds two. newcomer: the key of one that stays."""
    holder, held = connection.execute("SELECT holder, held FROM holders ORDER BY held DESC LIMIT 1").fetchone()
    if held > 1:
        return connection.execute(_EVICT_OF_HOLDER, (holder, newcomer))
    return connection.execute(_EVICT_OLDEST, (newcomer,))


def _one(connection: sqlite3.Connection, statement: str, *values: object) -> int:
    return int(connection.execute(statement, values).fetchone()[0])


def _states(rows: Sequence[tuple[Any, ...]] | None) -> list[SessionState]:
    states = []
    for (content,) in rows or ():
        with suppress(msgspec.DecodeError):  # a row that cannot be read is no session
            states.append(_decode(content))
    return states
