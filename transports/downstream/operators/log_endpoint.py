"""`/metrics/dashboard/log`: the newest lines of the log that the gateway keeps, as `mcp-gateway logs` shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from mcp_gateway.config.settings import LOG_LEVELS
from mcp_gateway.config.shown_text import shown, shown_lines
from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.downstream.server.pages import parameters
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, SharedTasks
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry.kept_log import Line, kept_lines, line_filter
from mcp_gateway.transports.telemetry.metric_reader import READERS

LOG_PATH: Final = "/metrics/dashboard/log"
MOST_LINES: Final = 200
_LAST_BYTES: Final = 262_144
"""Of each of the two parts: what is looked at again and again."""
_LAST_BYTES_FILTERED: Final = 8_388_608
_LONGEST_TEXT: Final = 4_000
_LONGEST_ID: Final = 200
_NAMED: Final = ("time", "level", "actor", "text", "error")
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class LogEndpoint:
    """`?request=ID&level=warning` narrows it, as the options of the command do.

    folder:   where the log is kept; None where it is not.
    may_read: whether a request's client may see what others do.
    """

    def __init__(self, folder: Path | None, may_read: Callable[[Incoming], bool]) -> None:
        self._folder = folder
        self._may_read = may_read
        self._answering = HeldTasks()
        self._reading: SharedTasks[tuple[str, str], bytes] = SharedTasks()

    def handle(self, incoming: Incoming) -> None:
        """Raises: Refused."""
        if incoming.method not in ("GET", "HEAD"):
            method_not_allowed(incoming, "GET")
            return
        if not self._may_read(incoming):
            raise Refused("forbidden", "where nobody has to log in, only who is on the gateway's machine may read its log")
        asked = parameters(incoming.query)
        request_id, level = asked.get("request", "")[:_LONGEST_ID], asked.get("level", "debug")
        if level not in LOG_LEVELS:
            raise Refused("invalid_params", f"there is no such level; there are {', '.join(LOG_LEVELS)}")
        self._answering.start(self._answer(incoming, (request_id, level)))

    async def _answer(self, incoming: Incoming, asked: tuple[str, str]) -> None:
        try:
            body = await self._reading.join(asked, lambda: self._read(*asked))
        except OSError:
            body = b'{"lines":[],"problem":"there is no log to be read in the state directory"}'
        incoming.respond(200, body, _HEADERS)

    async def _read(self, request_id: str, level: str) -> bytes:
        """Raises: OSError"""
        folder = self._folder
        if folder is None:
            return b'{"lines":[],"problem":"without a state directory the gateway keeps no log"}'
        matches = line_filter(request_id or None, level)
        most_bytes = _LAST_BYTES_FILTERED if request_id else _LAST_BYTES

        def read() -> bytes:
            lines = kept_lines(folder, matches, MOST_LINES, last_bytes=most_bytes)
            return msgspec.json.encode({"lines": [_row(line) for line in lines]})

        return await asyncio.get_running_loop().run_in_executor(READERS, read)


def _row(line: Line) -> dict[str, Any]:
    """{"time", "level", "actor", "text", "error", "fields": [[name, value]]}, harmless and of a bounded length."""
    named = {name: _cut(str(line.get(name, "")), lines=name == "error") for name in _NAMED}
    fields = [[_cut(name), _cut(str(value))] for name, value in line.items() if name not in (*_NAMED, "process")]
    return named | {"fields": fields}


def _cut(text: str, *, lines: bool = False) -> str:
    return (shown_lines if lines else shown)(text[:_LONGEST_TEXT])
