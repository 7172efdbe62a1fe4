"""The node around the one cell of a process: its events, its restarts, and its end. What `serve --embedded` and programs run."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from typing import Any

from mcp_gateway.actors.events.embedded_event_log import EmbeddedEventLog
from mcp_gateway.actors.messages.node_link import CellContent, CellFactory
from mcp_gateway.actors.node.backend_changes import BackendChange, backend_change
from mcp_gateway.actors.node.kept_revocations import keep_revocations
from mcp_gateway.actors.node.node_status import tree_row
from mcp_gateway.config.loader import ConfigError
from mcp_gateway.config.settings import LOG_LEVELS, Settings
from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event

from .settings_watch import log_answer

CELL_NAME = "cell/0"
MAX_RESTARTS = 5
RESTART_PERIOD_S = 60.0

_logger = logging.getLogger(__name__)


class EmbeddedNode:
    """Runs one cell's content and stands in for what a node has around it. Implements `NodeLink`.

    settings: what runs now. content: the cell that runs; None while there is none.
    """

    is_caught_up = True

    def __init__(self, settings: Settings, factory: CellFactory) -> None:
        self.settings = settings
        self.content: CellContent | None = None
        self._factory = factory
        self._escalations: asyncio.Queue[str] = asyncio.Queue()
        self._restarts_s: deque[float] = deque()
        self._started_at_s = time.time()
        retention = settings.transports.http_sse.retention_events
        self._log = EmbeddedEventLog(settings.gateway.state_path, retention, self._deliver)

    # ---- life

    async def start(self) -> None:
        """Start the cell; returns when it serves.

        Raises: OSError if its port cannot be bound.
        """
        content = self._factory(self.settings, 0, CELL_NAME, self)
        last_event_id = self.last_event_id
        await content.start()
        self.content = content
        content.deliver_events(self._log.events_after(last_event_id))

    async def keep_running(self) -> str:
        """Start the cell again each time that it gives up, without end; returns why it was given up itself."""
        while True:
            reason = await self._escalations.get()
            await self.stop_cell()
            if not self._may_restart():
                return f"the cell failed more than {MAX_RESTARTS} times in {RESTART_PERIOD_S:g} s, last: {reason}"
            _logger.error("the cell is started again: %s", reason)
            try:
                await self.start()
            except Exception as error:
                _logger.exception("the cell could not be started again")
                self._escalations.put_nowait(repr(error))

    async def drain(self, deadline_s: float) -> None:
        """As `CellContent.drain`; nothing where there is no cell."""
        if self.content is not None:
            await self.content.drain(deadline_s)

    async def stop_cell(self) -> None:
        content, self.content = self.content, None
        if content is not None:
            await content.stop()

    def close(self) -> None:
        """Let go of the log; the cell has stopped."""
        self._log.close()

    def take(self, change: BackendChange) -> str:
        """Run with it from now on; what has changed is told to the log, and in a line for a service manager."""
        self.settings = change.settings
        if self.content is not None:
            self.content.apply_settings(change.settings)
        for kind, backend in change.events:
            self.publish(f"mcp.backend.{kind}", {"backend": backend}, int(time.time() * 1000))
        return log_answer({"changes": change.events, "tables": change.tables, "left": change.left})

    def _may_restart(self) -> bool:
        now_s = time.monotonic()
        self._restarts_s.append(now_s)
        while self._restarts_s[0] < now_s - RESTART_PERIOD_S:
            self._restarts_s.popleft()
        return len(self._restarts_s) <= MAX_RESTARTS

    # ---- NodeLink

    @property
    def lost(self) -> LostIds:
        return self._log.lost

    @property
    def last_event_id(self) -> int:
        return self._log.last_id

    def events_after(self, event_id: int) -> list[Event]:
        return self._log.events_after(event_id)

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        self._log.publish(topic, payload, timestamp_ms)

    def _deliver(self, events: list[Event]) -> None:
        if self.content is not None:
            self.content.deliver_events(events)

    def request_stop(self, reason: str) -> None:
        self._escalations.put_nowait(reason)

    def want(self, thing: str) -> None:
        """There is no cluster that could have it."""

    async def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if command == "restart":
            return await self._restart(str(arguments["child"]))
        if command == "log-level":
            return _change_log_level(str(arguments["level"]))
        try:
            change = backend_change(self.settings, command, arguments)
        except ConfigError as error:
            return {"refused": str(error).splitlines()}
        state_path = self.settings.gateway.state_path
        if state_path is not None and change.settings.revocations != self.settings.revocations:
            try:
                keep_revocations(state_path, change.settings.revocations)
            except OSError as error:
                return {"error": f"it cannot be kept: {error.strerror}"}
        self.take(change)
        return {"ok": True}

    async def _restart(self, child: str) -> dict[str, Any]:
        if self.content is None or not child.startswith(f"{CELL_NAME}/"):
            return {"error": f"an embedded gateway has the actors of {CELL_NAME} to restart ({CELL_NAME}/router)"}
        return await self.content.command("restart", {"child": child.removeprefix(f"{CELL_NAME}/")})

    async def node_status(self) -> dict[str, Any]:
        status = await self.content.status() if self.content is not None else {}
        uptime_s = time.time() - self._started_at_s
        row = tree_row("embedded", pid=os.getpid(), uptime_s=uptime_s, children=status.pop("tree", ()))
        return {"version": VERSION, "uptime_seconds": round(uptime_s, 3), "tree": [row], **status}

    def forward(self, cell_name: str, message: object) -> None:
        raise LookupError(f"{cell_name} does not run: an embedded gateway is one cell")


def _change_log_level(level: str) -> dict[str, Any]:
    """Of this package's own lines: the program around it may have others."""
    if level not in LOG_LEVELS:
        return {"error": f"{level!r} is no level; there are {', '.join(LOG_LEVELS)}"}
    logging.getLogger("mcp_gateway").setLevel(level.upper())
    return {"ok": True, "level": level}
