"""What the tools of servers were when they were approved: SQLite in the state directory, which all cells read and write, and
`mcp-gateway approve` as well. Where there is no disk, memory must do, and ends with the process.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from mcp_gateway.transports.protocol.curation.tool_pins import Comparison, Definition, Pin, compare

from .sqlite_file import SqliteFile

FILE_NAME: Final = "tool_pins.sqlite3"
_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS pins (backend TEXT NOT NULL, tool TEXT NOT NULL, member TEXT NOT NULL, approved TEXT NOT NULL,"
    " seen TEXT NOT NULL, PRIMARY KEY (backend, tool, member)) WITHOUT ROWID",
)
_KNOWN: Final = "SELECT tool, member, approved, seen FROM pins WHERE backend = ?"
_WRITE: Final = "INSERT OR REPLACE INTO pins VALUES (?, ?, ?, ?, ?)"
_IS_CHANGED: Final = "SELECT 1 FROM pins WHERE backend = ? AND tool = ? AND approved <> seen LIMIT 1"
_CHANGED: Final = "SELECT DISTINCT backend, tool, member FROM pins WHERE approved <> seen ORDER BY backend, tool, member"
_APPROVE: Final = "UPDATE pins SET approved = seen WHERE backend = ? AND tool = ?"

_logger = logging.getLogger(__name__)


@attrs.frozen
class ChangedTool:
    """members: what of it has changed."""

    backend: str
    tool: str
    members: tuple[str, ...]


class PinsUnavailable(Exception):
    """The pins cannot be read or written now."""


class PinFile:
    """Implements `bridge_site.ToolPins`. Methods block for as long as the disk takes; only `changed` and `approve`, which an
    operator asks, raise `PinsUnavailable`.
    """

    def __init__(self, state_path: Path | None) -> None:
        path = None if state_path is None else state_path / FILE_NAME
        self._file = SqliteFile(path, _VERSION, _TABLES, exclusive=False, contents="pins of tools", say=_logger.log)
        self._file.open(_nothing)
        self._memory: dict[str, dict[tuple[str, str], Pin]] = {}  # {backend: its pins} as this process knows them

    def take(self, backend: str, listed: Mapping[str, Definition]) -> Comparison:
        """A server has listed these tools."""
        if self._file.wants_mending:
            self._file.mend(_nothing)
        if self._file.is_durable:
            try:
                with self._file.transaction() as connection:
                    known = {(tool, member): Pin(*pins) for tool, member, *pins in connection.execute(_KNOWN, (backend,))}
                    compared = compare(known, listed)
                    rows = [(backend, *key, pin.approved, pin.seen) for key, pin in compared.written.items()]
                    connection.executemany(_WRITE, rows)
                self._memory[backend] = known | dict(compared.written)
                return compared
            except sqlite3.Error as error:
                _logger.warning("pins of tools are compared with what this process knows: %s", error)
        compared = compare(self._memory.get(backend, {}), listed)
        self._memory.setdefault(backend, {}).update(compared.written)
        return compared

    def is_changed(self, backend: str, tool: str) -> bool:
        """Whether a tool is not what was approved, as far as any cell has seen."""
        if self._file.is_durable:
            try:
                with self._file.transaction(writes=False) as connection:
                    return connection.execute(_IS_CHANGED, (backend, tool)).fetchone() is not None
            except sqlite3.Error:
                pass
        return any(pin.approved != pin.seen for (name, _), pin in self._memory.get(backend, {}).items() if name == tool)

    def changed(self) -> list[ChangedTool]:
        """All tools that are not what was approved."""
        members: dict[tuple[str, str], list[str]] = {}
        try:
            with self._file.transaction(writes=False) as connection:
                for backend, tool, member in connection.execute(_CHANGED):
                    members.setdefault((backend, tool), []).append(member)
        except sqlite3.Error as error:
            raise PinsUnavailable(str(error)) from None
        return [ChangedTool(*key, tuple(names)) for key, names in members.items()]

    def approve(self, backend: str, tool: str) -> None:
        """From now on it is what it was seen to be last."""
        try:
            with self._file.transaction() as connection:
                connection.execute(_APPROVE, (backend, tool))
        except sqlite3.Error as error:
            raise PinsUnavailable(str(error)) from None

    def close(self) -> None:
        self._file.close()


def _nothing(connection: sqlite3.Connection) -> None:
    """What the file has missed is not known any more."""
