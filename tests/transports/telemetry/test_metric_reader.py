"""Reading the metrics: a removed backend shows nothing any more, and one that comes back shows itself again."""

from __future__ import annotations

import asyncio

from mcp_gateway.actors.messages.topology import Topology
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.metric_reader import exposition, read_samples
from tests.doubles.patience import patience
from tests.doubles.running_cell import cell_settings, running_cell

STAYS = {"name": "stays", "prefix": "stays__", "builtin": "demo"}
LEAVES = {"name": "leaves", "prefix": "leaves__", "replicas": ["http://127.0.0.1:9/mcp"]}
GAUGES = {"ring_members", "pool_connections", "health_status", "circuit_state"}


def shown(word: str) -> set[str]:
    """Gauges that have a sample in which the word stands."""
    return {
        sample.name.removeprefix("mcp_gateway_")
        for sample in read_samples()
        if any(word in value for value in sample.labels.values())
    } & GAUGES


def test_a_removed_backend_leaves_no_ghost_and_may_come_back() -> None:
    async def body() -> None:
        settings = cell_settings([STAYS, LEAVES])
        async with running_cell(settings) as cell, patience():

            def arrange(count: int) -> None:
                cell.cell._system.post(cell.cell._root, Topology(backends=settings.backends[:count], routes=()))

            async def until(words: set[str]) -> None:
                while shown("leaves") != words:
                    await asyncio.sleep(0.02)

            await until(GAUGES)
            arrange(1)
            await until(set())
            assert shown("stays") == GAUGES
            arrange(2)
            await until(GAUGES - {"circuit_state"})  # closed ones are shown from the start, or once they have been open

    asyncio.run(body())


def test_what_is_forgotten_is_in_no_exposition() -> None:
    metrics.ring_members.labels("forgotten").set(1)
    for accept in ("", "application/openmetrics-text"):
        assert b'route="forgotten"' in exposition(accept)[0]
    metrics.forget(metrics.ring_members, "forgotten")
    for accept in ("", "application/openmetrics-text"):
        assert b'route="forgotten"' not in exposition(accept)[0]
