"""The snapshot behind the dashboard, put together in any cell: the node's status, viability and health, who is here and what they
have asked for lately, and the newest events."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.messages.health import HealthRequested
from mcp_gateway.actors.messages.node_link import NodeLink
from mcp_gateway.actors.messages.status import ViabilityRequested
from mcp_gateway.actors.storage.pin_file import ChangedTool, PinsUnavailable
from mcp_gateway.transports.protocol.curation.curation import Curation
from mcp_gateway.transports.protocol.topics.topic_log import TopicPattern

from .curation_table import curation_table
from .operator_actions import Pins

JUDGE = "cell/0"
"""The cell that judges for the node."""

_ANSWER_S = 2.0
_EVENTS = 100
_REQUESTS = 200
_CLIENTS = 100
_EVERYTHING = TopicPattern("all")


@attrs.frozen
class ViabilityAsked:
    """A question between cells: what do you know of the node's viability? Answered with the report."""


@attrs.frozen
class ClientsAsked:
    """A question between cells: who is with you, and what have they asked for lately? Answered with `_own_clients`."""


class DashboardState:
    """Asks around and puts together; a part that does not answer in time is left empty, because the page is for bad times.

    who_is_here: what the command `sessions` reads of this cell.
    curations:   {backend: how its tools are served}, as this cell has seen it.
    """

    def __init__(
        self,
        port: LoopPort,
        link: NodeLink,
        who_is_here: Callable[[], Mapping[str, Any]],
        curations: Mapping[str, Curation],
        pins: Pins,
    ) -> None:
        self._port = port
        self._link = link
        self._who_is_here = who_is_here
        self._curations = curations
        self._pins = pins
        self._ids = itertools.count(1)
        port.cells.answer_cells(ViabilityAsked, lambda _: self._or_empty(self._own_viability()))
        port.cells.answer_cells(ClientsAsked, lambda _: self._own_clients())

    async def take(self) -> dict[str, Any]:
        node, viability, health, clients = await asyncio.gather(
            self._or_empty(self._link.node_status()),
            self._or_empty(self._viability()),
            self._or_empty(self._health()),
            self._clients(),
        )
        level = logging.getLogger("mcp_gateway").getEffectiveLevel()
        return {
            "at": int(time.time() * 1000),
            "log_level": logging.getLevelName(level).lower(),
            "revoked": list(self._port.settings.revocations.subjects),
            "cell": self._port.cell_name,
            "node": node,
            "viability": viability,
            "health": health,
            "events": self._events(),
            **clients,
        }

    @staticmethod
    async def _or_empty(answer: Any) -> dict[str, Any]:
        try:
            return dict(await answer)
        except (LookupError, TimeoutError):
            return {}

    async def _viability(self) -> dict[str, Any]:
        judge = self._port.settings.name_in_cluster(JUDGE)
        if self._port.cell_name == judge:
            return await self._own_viability()
        report: dict[str, Any] = await self._port.cells.ask_cell(judge, ViabilityAsked(), _ANSWER_S)
        return report

    async def _own_viability(self) -> dict[str, Any]:
        question = ViabilityRequested(f"viability?{next(self._ids)}")
        reported = await asyncio.wait_for(self._port.ask("viability-monitor", question), _ANSWER_S)
        return dict(reported.report)

    async def _health(self) -> dict[str, Any]:
        question = HealthRequested(f"dashboard?{next(self._ids)}")
        reported = await asyncio.wait_for(self._port.ask("health-monitor", question), _ANSWER_S)
        return {"status": reported.status, "components": reported.components, "history": reported.history}

    async def _clients(self) -> dict[str, Any]:
        """{"requests": the newest of the node that have ended, "failures": {backend: the last of its server}, "clients": who is
        here, "parked": calls, "curation": as `curation_table` has it}
        """
        cells = self._port.cells
        others = (self._or_empty(cells.ask_cell(name, ClientsAsked(), _ANSWER_S)) for name in cells.other_cells)
        answers = [self._own_clients(), *filter(None, await asyncio.gather(*others))]
        requests = heapq.merge(*(each["requests"] for each in answers), key=lambda row: row["at"], reverse=True)
        clients = itertools.chain.from_iterable(each["clients"] for each in answers)
        failures: dict[str, dict[str, Any]] = {}
        seen: dict[str, dict[str, str | None]] = {}
        for each in answers:
            for backend, row in each["failures"].items():
                failures[backend] = max(row, failures.get(backend, row), key=lambda kept: kept["at"])
            for backend, tools in each["seen"].items():
                seen.setdefault(backend, {}).update(tools)
        return {
            "failures": failures,
            "curation": curation_table(self._port.settings.backends, seen, self._changed_tools()),
            "requests": list(itertools.islice(requests, _REQUESTS)),
            "clients": sorted(clients, key=lambda row: (-row["calls"] - row["streams"], row.get("idle_seconds", 0.0)))[:_CLIENTS],
            "parked": sum(each["parked"] for each in answers),
        }

    def _own_clients(self) -> dict[str, Any]:
        here = self._who_is_here()
        return {
            "requests": self._port.recent_requests(),
            "failures": self._port.last_failures(),
            "seen": {backend: curation.seen for backend, curation in self._curations.items() if curation.seen},
            "clients": here["clients"][:_CLIENTS],
            "parked": sum(here["parked"].values()),
        }

    def _changed_tools(self) -> list[ChangedTool]:
        if all(backend.tools.get("pin", "off") == "off" for backend in self._port.settings.backends):
            return []
        try:
            return self._pins.changed()
        except PinsUnavailable:
            return []

    def _events(self) -> list[dict[str, Any]]:
        """The newest events, in the shape of the event streams, with their ids."""
        feed = self._port.topics
        page = feed.read(max(0, feed.last_id - _EVENTS), _EVERYTHING, _EVENTS)
        return [
            {"id": event.id, "event_type": event.topic, "payload": event.payload, "timestamp": event.timestamp_ms}
            for event in page.events
        ]
