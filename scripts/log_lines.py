"""Log records as JSON lines on standard error, each written whole."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# Source: POSIX write(2): up to PIPE_BUF (4096 on Linux) bytes to a pipe are not mixed with those of other processes.
LONGEST_LINE_BYTES = 4_000


_LONGEST_TEXT_BYTES = 1_500
_FIELDS_END_BYTES = 3_000  # a field that would make the line longer than this is left out; the rest is for the error


class JsonLineFormatter(logging.Formatter):
    """One line: {"time", "level", "process", "actor", "text", fields..., "error"?}; what does not fit is cut or left out."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": record.process,
            "actor": getattr(record, "actor", record.name),
            "text": _cut(record.getMessage(), _LONGEST_TEXT_BYTES, keep_end=False),
        }
        size = len(json.dumps(line))
        for name, value in getattr(record, "fields", {}).items():
            size += len(json.dumps({name: value}, default=str))
            if size <= _FIELDS_END_BYTES:
                line[name] = value
        if record.exc_info:
            left = LONGEST_LINE_BYTES - len(json.dumps(line, default=str)) - len(', "error": ""')
            line["error"] = _cut(self.formatException(record.exc_info), left, keep_end=True)  # where it says what happened
        return json.dumps(line, default=str)


def _cut(text: str, longest_bytes: int, *, keep_end: bool) -> str:
    """The text, or as much of it as JSON can carry in so many bytes; in JSON a character takes 1 to 12."""
    if len(json.dumps(text)) <= longest_bytes:
        return text
    taken, size = 0, len('"... "')
    for character in reversed(text) if keep_end else text:
        size += len(json.dumps(character)) - 2
        if size > longest_bytes:
            break
        taken += 1
    return "... " + text[len(text) - taken :] if keep_end else text[:taken] + " ..."


def configure_logging(level: int = logging.INFO) -> None:
    """Send all records to standard error as JSON lines; processes forked later inherit it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLineFormatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    # Tornado logs every request that ends in an error of the client, and asyncio its choice of selector.
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
