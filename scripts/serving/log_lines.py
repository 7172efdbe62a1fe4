"""Log records: JSON lines, each written whole, or lines for a person; on standard error, and kept; never a secret."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from mcp_gateway.config.settings import LoggingSettings
from mcp_gateway.config.shown_text import shown, shown_lines

from .log_file import LogFile
from .log_writer import standard_error_handler

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
            "text": _cut(redacted(record.getMessage()), _LONGEST_TEXT_BYTES, keep_end=False),
        }
        size = len(json.dumps(line))
        for name, value in shown_fields(record).items():
            size += len(json.dumps({name: value}, default=str))
            if size <= _FIELDS_END_BYTES:
                line[name] = value
        if record.exc_info:
            left = LONGEST_LINE_BYTES - len(json.dumps(line, default=str)) - len(', "error": ""')
            # Its end says what happened.
            line["error"] = _cut(redacted(self.formatException(record.exc_info)), left, keep_end=True)
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


class HumanFormatter(logging.Formatter):
    """One short line for a person on a terminal: time, level, actor, text, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        actor = getattr(record, "actor", record.name)
        fields = " ".join(f"{name}={value}" for name, value in shown_fields(record).items())
        text = redacted(record.getMessage())
        line = f"{time} {record.levelname.lower():<7} {actor}: {text}" + (f"  {fields}" if fields else "")
        line = shown(line)
        return f"{line}\n{shown_lines(redacted(self.formatException(record.exc_info)))}" if record.exc_info else line


_SECRET_NAMES = re.compile(r"authorization|cookie|password|passwd|secret|token|api[_-]?key|credential", re.IGNORECASE)
_QUERY = re.compile(r"""(://[^\s?#"'<>]{1,2000}\?)[^\s"'<>]+""")
_SECRET_TEXT = re.compile(
    r"(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{6,}"
    r"|(?P<user>://)[^\s/@]+@"
    r"|(?P<name>\b[\w-]*(?:password|passwd|secret|token|api[_-]?key|authorization)[\w-]*[\"']?\s*[=:]\s*[\"']?)(?!Bearer|Basic)[^\s\"',;&}]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without what looks like a secret: the last line of defence, for texts that others have written."""
    return _SECRET_TEXT.sub(lambda match: f"{match['scheme'] or match['user'] or match['name']}…", _QUERY.sub(r"\1…", text))


def shown_fields(record: logging.LogRecord) -> dict[str, object]:
    """The record's own fields, secrets left out."""
    fields: dict[str, object] = getattr(record, "fields", {})
    return {
        name: "…" if _SECRET_NAMES.search(name) else redacted(value) if isinstance(value, str) else value
        for name, value in fields.items()
    }


def configure_logging(settings: LoggingSettings | None = None) -> None:
    """Send all records to standard error; processes forked later inherit it. Lines for people only where one reads them."""
    settings = settings or LoggingSettings()
    handler = standard_error_handler()
    is_human = settings.format == "human" or (settings.format == "auto" and sys.stderr.isatty())
    handler.setFormatter(HumanFormatter() if is_human else JsonLineFormatter())
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(settings.level.upper())
    # Tornado logs every request that ends in an error of the client, and asyncio its choice of selector.
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # gRPC writes past all of this, in lines of its own, where a server ends its connection; read once it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def keep_log(state_path: Path | None, settings: LoggingSettings) -> None:
    """Write what is logged from now on into the state directory as well, for `mcp-gateway logs`."""
    if state_path is not None and settings.keep_bytes:
        handler = LogFile(state_path, settings.keep_bytes)
        handler.setFormatter(JsonLineFormatter())
        logging.root.addHandler(handler)
