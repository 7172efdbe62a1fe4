"""Reads the log that a gateway keeps in its state directory: its end, what is about one request, and what comes next."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from mcp_gateway.config.settings import LOG_LEVELS
from mcp_gateway.config.shown_text import shown, shown_lines
from mcp_gateway.scripts.serving.log_file import FILE_NAME, OLDER_NAME

Line = Mapping[str, Any]
"""One record, as `log_lines.JsonLineFormatter` writes it."""

_POLL_S: Final = 0.2
_LONGEST_LINE_BYTES: Final = 65_536
_NAMED_FIRST: Final = ("time", "level", "process", "actor", "text", "error")
_IDS: Final = ("request_id", "trace_id", "session", "call_id")


def kept_lines(folder: Path, matches: Callable[[Line], bool], most: int | None, newest_bytes: int | None = None) -> list[Line]:
    """The newest lines that match, oldest first; most: None for all.

    newest_bytes: how much of the newest part counts; all of it where it is None.

    Raises: FileNotFoundError where nothing was ever kept.
    """
    found: deque[Line] = deque(maxlen=most)
    paths = [path for path in (folder / OLDER_NAME, folder / FILE_NAME) if path.exists()]
    if not paths:
        raise FileNotFoundError(folder / FILE_NAME)
    for path in paths:
        with path.open("rb") as file:
            end = newest_bytes if path.name == FILE_NAME else None
            found.extend(line for line in _lines(file, end) if matches(line))
    return list(found)


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
        return [line for each in whole if (line := _line(each)) is not None]


def follow(follower: LogFollower, matches: Callable[[Line], bool]) -> Iterator[Line]:
    """The lines that match as they come, without end."""
    while True:
        yield from filter(matches, follower.read())
        time.sleep(_POLL_S)


def line_filter(request_id: str | None, least_level: str) -> Callable[[Line], bool]:
    """Whether a line is about this request, trace, session or call, where one is named, and no less urgent than the level."""
    levels = LOG_LEVELS[LOG_LEVELS.index(least_level) :]

    def matches(line: Line) -> bool:
        if line.get("level") in LOG_LEVELS and line["level"] not in levels:
            return False
        return request_id is None or any(line.get(name) == request_id for name in _IDS)

    return matches


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


def _lines(file: BinaryIO, end: int | None) -> Iterator[Line]:
    while (end is None or file.tell() < end) and (raw := file.readline(_LONGEST_LINE_BYTES)):
        if (line := _line(raw)) is not None:
            yield line


def _line(raw: bytes) -> Line | None:
    """None for what a full disk has left of a line."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
