"""The log in the state directory as it is read: where it is, its newest lines, and which of them are about one request."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from mcp_gateway.config.settings import LOG_LEVELS

FILE_NAME: Final = "gateway.log"
OLDER_NAME: Final = "gateway.log.1"
"""What was written before; there are two parts, of half the bound each."""

Line = Mapping[str, Any]
"""One record, as `log_lines.JsonLineFormatter` writes it."""

_LONGEST_LINE_BYTES: Final = 65_536
_IDS: Final = ("request_id", "trace_id", "session", "call_id")


def kept_lines(
    folder: Path,
    matches: Callable[[Line], bool],
    most: int | None,
    newest_bytes: int | None = None,
    *,
    last_bytes: int | None = None,
) -> list[Line]:
    """The newest lines that match, oldest first; most: None for all.

    newest_bytes: how much of the newest part counts; all of it where it is None.
    last_bytes:   how much is read at the most, from the end of each part; all of it where it is None.

    Raises: FileNotFoundError where nothing was ever kept.
    """
    found: deque[Line] = deque(maxlen=most)
    paths = [path for path in (folder / OLDER_NAME, folder / FILE_NAME) if path.exists()]
    if not paths:
        raise FileNotFoundError(folder / FILE_NAME)
    for path in paths:
        with path.open("rb") as file:
            if last_bytes is not None and (size := file.seek(0, 2)) > last_bytes:
                file.seek(size - last_bytes)
                file.readline(_LONGEST_LINE_BYTES)  # the end of one
            else:
                file.seek(0)
            end = newest_bytes if path.name == FILE_NAME else None
            found.extend(line for line in _lines(file, end) if matches(line))
    return list(found)


def line_filter(request_id: str | None, least_level: str) -> Callable[[Line], bool]:
    """Whether a line is about this request, trace, session or call, where one is named, and no less urgent than the level."""
    levels = LOG_LEVELS[LOG_LEVELS.index(least_level) :]

    def matches(line: Line) -> bool:
        if line.get("level") in LOG_LEVELS and line["level"] not in levels:
            return False
        return request_id is None or any(line.get(name) == request_id for name in _IDS)

    return matches


def read_line(raw: bytes) -> Line | None:
    """None for what a full disk has left of a line."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _lines(file: BinaryIO, end: int | None) -> Iterator[Line]:
    while (end is None or file.tell() < end) and (raw := file.readline(_LONGEST_LINE_BYTES)):
        if (line := read_line(raw)) is not None:
            yield line
