"""A whole cell on the test's own event loop, with the node around it replaced by a log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

from mcp_gateway.actors.cell import cell as cells
from mcp_gateway.actors.cell.cell import Cell
from mcp_gateway.actors.forwarding.forwarding import Forwarding
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.actors.node.backend_changes import backend_change
from mcp_gateway.config.loader import ConfigError, settings_from_mapping
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.authenticator import Authenticator
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicLog
from tests.doubles.http_parser import http_parser_setting
from tests.doubles.ports import free_port

DEMO = {"name": "demo", "prefix": "", "builtin": "demo"}

MOODS = ("vsm.algedonic.", "mcp.health.")
"""How topics begin of what a cell feels: how busy the machine is decides when it says something, and whether it does."""


class RecordingLink:
    """Stands in for the node: orders events, hands them back to the cell in the next turn of the loop, keeps what it was told.

    events: every event so far. stops: the reasons of `request_stop`. unlogged: how topics begin that do not reach the log.
    """

    def __init__(self, unlogged: tuple[str, ...] = ()) -> None:
        self._unlogged = unlogged
        self.events: list[Event] = []
        self.stops: list[str] = []
        self.cell: Cell | None = None
        self.settings: Settings | None = None
        self._log = TopicLog(10_000)

    is_caught_up = True
    lost = NOTHING_LOST
    last_event_id = 0

    def events_after(self, event_id: int) -> list[Event]:
        return [event for event in self.events if event.id > event_id]

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        if topic.startswith(self._unlogged):
            return
        event = self._log.append(topic, payload, timestamp_ms)
        self.events.append(event)
        asyncio.get_running_loop().call_soon(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        if self.cell is not None:
            self.cell.deliver_events([event])

    def request_stop(self, reason: str) -> None:
        self.stops.append(reason)

    def forward(self, cell_name: str, message: object) -> None:
        raise LookupError(cell_name)

    def want(self, thing: str) -> None:
        """There is no cluster that could have it."""

    async def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert self.cell is not None
        assert self.settings is not None
        try:
            change = backend_change(self.settings, command, arguments)
        except ConfigError as error:
            return {"refused": str(error).splitlines()}
        self.settings = change.settings
        self.cell.apply_settings(change.settings)
        return {"ok": True}

    async def node_status(self) -> dict[str, Any]:
        assert self.cell is not None
        return {"version": "0", "uptime_seconds": 1.0, **await self.cell.status()}

    def topics(self) -> list[str]:
        return [event.topic for event in self.events]


class RunningCell:
    """What a test sees of the cell. url: without a path."""

    def __init__(self, cell: Cell, link: RecordingLink, settings: Settings) -> None:
        self.cell = cell
        self.link = link
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.gateway.port}"

    async def command(self, name: str, child: str) -> None:
        answer = await self.cell.command(name, {"child": child})
        assert answer.get("ok"), answer

    async def rows(self) -> dict[str, dict[str, Any]]:
        """{name: row} of the supervision tree."""
        found: dict[str, dict[str, Any]] = {}
        rows = list((await self.cell.status())["tree"])
        while rows:
            row = rows.pop()
            found[row["name"]] = row
            rows += row["children"]
        return found

    async def status_of(self, child: str) -> dict[str, Any]:
        """What one actor says of itself; as `ask`, it may find nobody there while the actor is started again."""
        return dict((await self.cell._port.ask(child, StatusRequested("asked by a test"))).status)

    def actor_count(self) -> int:
        """Actors that Thespian knows of, dead ones that nobody has forgotten included."""
        return len(self.cell._system._base.actorRegistry)


def cell_settings(
    backends: Sequence[Mapping[str, Any]] = (DEMO,), routes: Sequence[Mapping[str, Any]] = (), **tables: Mapping[str, Any]
) -> Settings:
    """Settings with a free port and no state directory; tables: of the configuration file, by name."""
    gateway = {
        "port": free_port(),
        "state_dir": "",
        "health_check_interval": 1.0,
        **http_parser_setting(),
        **tables.pop("gateway", {}),
    }
    lists = {"backends": [dict(each) for each in backends], "routes": [dict(each) for each in routes]}
    return settings_from_mapping({**tables, **lists, "gateway": gateway}, "test.toml")


def alone() -> Forwarding:
    """The cells of a node that is one cell."""
    return Forwarding(RecordingLink(), "cell/0", 1)


@asynccontextmanager
async def running_cell(
    settings: Settings, unlogged: tuple[str, ...] = (), authenticator: Authenticator | None = None
) -> AsyncIterator[RunningCell]:
    """Serve for the length of the `async with` block; afterwards nothing of the cell is left on the loop."""
    link = RecordingLink(unlogged)
    cell = Cell(settings, 0, "cell/0", link, authenticator)
    with mock.patch.object(cells, "_settle_process"):  # a cell takes the process for its own, a test does not
        await cell.start()
    link.cell, link.settings = cell, settings
    try:
        yield RunningCell(cell, link, settings)
    finally:
        link.cell = None
        await cell.stop()
