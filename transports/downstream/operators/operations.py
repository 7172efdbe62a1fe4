"""Endpoints for operators: `/health`, `/health/live`, `/health/ready`, `/health/history`, `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import attrs
import msgspec

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.downstream.server.gate import Access
from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.ports.edge_port import EdgePort
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.telemetry.metric_reader import READERS, MetricsUnreadable, exposition
from mcp_gateway.transports.telemetry.tallies import write_tallies

_logger = logging.getLogger(__name__)

OPERATIONS_PATHS: Final = {
    "/health": Access.ANYBODY,
    "/health/live": Access.EVERYBODY,
    "/health/ready": Access.ANYBODY,
    "/health/history": Access.OPERATORS,
    "/metrics": Access.OPERATORS,
}
"""{path: whom it serves}. Load balancers show nobody's credential."""
_ANSWER_S = 2.0
_COUNTS_S = 0.5
"""For a cell that hangs: what it has counted is a fifth of a second old at most."""


@attrs.frozen
class CountsAsked:
    """One cell asks the others to show what they have counted: a scrape is about to read it."""


class QuestionFactory(Protocol):
    """Makes the question for the health monitor; the message class belongs to the actors."""

    def __call__(self, request_id: str) -> Any: ...


class OperationsEndpoint:
    """Answers what a load balancer, a scraper and a person on call ask.

    is_operator: who reads not only that something is wrong, but what.
    """

    def __init__(self, port: EdgePort, health_question: QuestionFactory, is_operator: Callable[[Principal | None], bool]) -> None:
        self._port = port
        self._is_operator = is_operator
        self._health_question = health_question
        self._started_s = time.monotonic()
        self._ids = itertools.count(1)
        self._tasks = HeldTasks()
        port.cells.answer_cells(CountsAsked, lambda _: write_tallies())

    def handle(self, incoming: Incoming) -> None:
        if incoming.method not in ("GET", "HEAD"):
            method_not_allowed(incoming, "GET")
        elif incoming.path == "/health/live":
            _respond(incoming, 200, {"status": "live"})
        else:
            answer = {
                "/health": self._health,
                "/health/ready": self._ready,
                "/health/history": self._history,
                "/metrics": self._metrics,
            }[incoming.path]
            self._tasks.start(answer(incoming))

    async def _health(self, incoming: Incoming) -> None:
        """200 while it is healthy or degraded, 503 while unhealthy or draining."""
        status, components, _ = await self._ask()
        if self._port.is_draining:
            status, components = "unhealthy", {**components, "gateway": {"status": "unhealthy", "reason": "draining"}}
        body: dict[str, Any] = {"status": status}
        if self._is_operator(incoming.principal):
            uptime_s = round(time.monotonic() - self._started_s, 3)
            body |= {"components": components, "version": VERSION, "uptime_seconds": uptime_s}
        _respond(incoming, 503 if status == "unhealthy" else 200, body)

    async def _ready(self, incoming: Incoming) -> None:
        """200 once the actors are up, until a drain begins; else what it waits for."""
        status, components, _ = await self._ask()
        if self._port.is_draining:
            _respond(incoming, 503, {"status": "not ready", "reason": "draining"})
        elif status == "unhealthy" and not self._is_operator(incoming.principal):
            _respond(incoming, 503, {"status": "not ready"})
        elif status == "unhealthy":
            waiting_for = [{"component": name, **each} for name, each in components.items() if each["status"] == "unhealthy"]
            reason = "; ".join(f"{each['component']}: {each.get('reason', '')}" for each in waiting_for)
            _respond(incoming, 503, {"status": "not ready", "reason": reason, "waiting_for": waiting_for})
        else:
            _respond(incoming, 200, {"status": "ready"})

    async def _history(self, incoming: Incoming) -> None:
        """The last changes of health that this cell has seen, oldest first."""
        status, _, history = await self._ask()
        _respond(incoming, 200, {"status": status, "changes": history})

    async def _ask(self) -> tuple[str, dict[str, Any], list[Any]]:
        try:
            question = self._health_question(f"health?{next(self._ids)}")
            reported = await asyncio.wait_for(self._port.ask("health-monitor", question), _ANSWER_S)
        except (LookupError, TimeoutError):
            return "unhealthy", {"health-monitor": {"status": "unhealthy", "reason": "does not answer"}}, []
        return reported.status, dict(reported.components), list(reported.history)

    async def _metrics(self, incoming: Incoming) -> None:
        """The whole node's numbers, from any of its cells: what has been counted anywhere by now."""
        write_tallies()
        await asyncio.gather(*map(self._have_shown, self._port.cells.other_cells))
        accept = incoming.headers.get("Accept", "")
        try:
            body, content_type = await asyncio.get_running_loop().run_in_executor(READERS, exposition, accept)
        except MetricsUnreadable:
            _logger.exception("a scrape failed")
            _respond(incoming, 503, {"error": "the metrics of the node cannot be read"})
            return
        incoming.respond(200, body, {"Cache-Control": "no-store"}, content_type=content_type)  # by a cookie, for no proxy to keep

    async def _have_shown(self, cell_name: str) -> None:
        with contextlib.suppress(LookupError, TimeoutError):
            await self._port.cells.ask_cell(cell_name, CountsAsked(), _COUNTS_S)


def _respond(incoming: Incoming, status: int, body: dict[str, Any]) -> None:
    incoming.respond(status, msgspec.json.encode(body), {"Cache-Control": "no-store"})
