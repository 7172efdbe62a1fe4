"""Reads the log that a gateway keeps in its state directory: its end, what is about one request, and what comes next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from mcp_gateway.config.shown_text import shown, shown_lines
from mcp_gateway.transports.telemetry.kept_log import FILE_NAME, Line, read_line

_POLL_S: Final = 0.2
_NAMED_FIRST: Final = ("time", "level", "process", "actor", "text", "error")


class LogFollower:
    """Gives the lines that are written after it was made, through restarts of the gateway and parts that are put away.

    began_bytes: where it began in the newest part; 0 where there was none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._file: BinaryIO | None = None
        self._rest = b""
        self._is_put_away = False
        self._open()
        self.began_bytes = 0 if self._file is None else self._file.seek(0, os.SEEK_END)

    def read(self) -> list[Line]:
        """What has come since; whole lines only."""
        if self._file is None:
            self._open()
        if self._file is None:
            return []
        found = self._read()
        if self._is_put_away:  # by now everybody writes elsewhere
            self._file.close()
            self._file, self._rest, self._is_put_away = None, b"", False
            self._open()
            return found + (self._read() if self._file is not None else [])
        self._is_put_away = self._is_another()
        return found

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb")
        except OSError:
            self._file = None

    def _is_another(self) -> bool:
        assert self._file is not None
        try:
            newest, ours = os.stat(self._path), os.fstat(self._file.fileno())
        except OSError:
            return False
        return (newest.st_dev, newest.st_ino) != (ours.st_dev, ours.st_ino)

    def _read(self) -> list[Line]:
        assert self._file is not None
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line for each in whole if (line := read_line(each)) is not None]


def follow(follower: LogFollower, matches: Callable[[Line], bool]) -> Iterator[Line]:
    """The lines that match as they come, without end."""
    while True:
        yield from filter(matches, follower.read())
        time.sleep(_POLL_S)


def text_of(line: Line) -> str:
    """One record for people: day and time here, level, actor, text, fields; the traceback of an error below."""
    fields = " ".join(f"{name}={value}" for name, value in line.items() if name not in _NAMED_FIRST)
    head = f"{_moment(line.get('time'))} {line.get('level', ''):<7} {line.get('actor', '')}: {line.get('text', '')}"
    text = shown(f"{head}  {fields}".rstrip())
    return f"{text}\n{shown_lines(str(line['error']))}" if "error" in line else text


def _moment(written: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(written)).astimezone():%Y-%m-%d %H:%M:%S}"
    except ValueError:
        return "?"
