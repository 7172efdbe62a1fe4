"""The two supervisors inside a cell: what is told to whom when the chain, or the edge beside it, starts again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mcp_gateway.actors.cell.gateway_supervisor import BESIDE_THE_CHAIN, GATEWAY_CHILDREN
from mcp_gateway.actors.messages.topology import Topology
from tests.doubles.calling_client import CallingClient
from tests.doubles.running_cell import DEMO, RunningCell, cell_settings, running_cell

SECOND = {"name": "second", "prefix": "second__", "builtin": "demo"}
FIRST = {**DEMO, "prefix": "demo__"}


def on_cell(body: Callable[[RunningCell], Awaitable[None]], *backends: dict[str, Any]) -> None:
    async def run() -> None:
        async with running_cell(cell_settings(backends or (DEMO,))) as cell:
            await body(cell)

    asyncio.run(run())


def supervision_events(cell: RunningCell) -> list[tuple[str, str]]:
    """(kind, child) in order."""
    prefix = "mcp.supervisor."
    found = [(event.topic.removeprefix(prefix), event.payload["child"]) for event in cell.link.events if prefix in event.topic]
    cell.link.events.clear()
    return found


def test_the_chain_starts_in_order_and_the_edge_beside_it() -> None:
    async def body(cell: RunningCell) -> None:
        tree = (await cell.cell.status())["tree"]
        assert [row["name"] for row in tree] == ["cell/0/edge", "cell/0/viability-monitor", "cell/0/gateway-supervisor"]
        assert [row["name"] for row in tree[2]["children"]] == [f"cell/0/{name}" for name in GATEWAY_CHILDREN]
        (pool,) = (row for row in tree[2]["children"] if row["name"].endswith("pool"))
        assert [row["name"] for row in pool["children"]] == ["cell/0/connection-pool/demo#0"]
        assert supervision_events(cell) == []

    on_cell(body)


@pytest.mark.parametrize("child", [*GATEWAY_CHILDREN, *BESIDE_THE_CHAIN])
@pytest.mark.parametrize("command", ["kill", "restart"])
def test_each_end_is_an_event_that_outlives_the_event_bus(command: str, child: str) -> None:
    async def body(cell: RunningCell) -> None:
        await cell.command(command, child)
        name = f"cell/0/{child}"
        exited = [("child_exited", name)] if command == "kill" else []
        assert supervision_events(cell) == [*exited, ("restarted", name)]

    on_cell(body)


@pytest.mark.parametrize("child", [*GATEWAY_CHILDREN, *BESIDE_THE_CHAIN])
def test_client_transports_are_registered_again_and_the_router_is_known_again(child: str) -> None:
    async def body(cell: RunningCell) -> None:
        await cell.command("kill", child)
        transports = (await cell.status_of("transport-registry"))["transports"]
        assert "streamable_http" in transports
        client = CallingClient(cell.url, "modern")
        assert await client.call("echo", {"message": "hello"}) == "ok"
        await client.close()
        rows = await cell.rows()
        assert all(row["pid"] for row in rows.values())

    on_cell(body)


def test_subscriptions_at_the_event_bus_are_made_again() -> None:
    async def body(cell: RunningCell) -> None:
        before = (await cell.status_of("event-bus"))["subscriptions"]
        await cell.command("kill", "event-bus")
        assert (await cell.status_of("event-bus"))["subscriptions"] == before > 0

    on_cell(body)


@pytest.mark.parametrize("child", [*GATEWAY_CHILDREN, *BESIDE_THE_CHAIN])
def test_backends_that_were_added_while_it_runs_are_still_there_after_a_crash(child: str) -> None:
    async def body(cell: RunningCell) -> None:
        backends = cell_settings([FIRST, SECOND]).backends
        cell.cell._system.post(cell.cell._root, Topology(backends=backends, routes=()))
        client = CallingClient(cell.url, "modern")
        assert await client.call("second__echo", {"message": "hello"}) == "ok"
        await cell.command("kill", child)
        assert await client.call("second__echo", {"message": "hello"}) == "ok"
        tools = (await client.request("tools/list", {}))["result"]["tools"]
        assert {"demo__echo", "second__echo"} <= {tool["name"] for tool in tools}
        for name in ("router", "connection-pool"):
            assert set(await cell.status_of(name)) == {"demo", "second"}
        # And one that was removed does not come back.
        cell.cell._system.post(cell.cell._root, Topology(backends=backends[1:], routes=()))
        await cell.command("kill", child)
        assert set(await cell.status_of("router")) == {"second"}
        assert await client.call("second__echo", {"message": "hello"}) == "ok"
        await client.close()

    on_cell(body, FIRST)


@pytest.mark.parametrize("child", [*GATEWAY_CHILDREN, *BESIDE_THE_CHAIN])
def test_a_backend_that_drains_does_so_after_a_crash(child: str) -> None:
    async def body(cell: RunningCell) -> None:
        cell.cell.apply_settings(cell_settings([FIRST, {**SECOND, "draining": True}]))
        session = await CallingClient(cell.url, "legacy").open()
        client = CallingClient(cell.url, "modern")
        assert await client.call("second__echo", {"message": "hello"}) == "draining"
        await cell.command("kill", child)
        assert await client.call("second__echo", {"message": "hello"}) == "draining"
        assert await client.call("demo__echo", {"message": "hello"}) == "ok"
        assert await session.call("second__echo", {"message": "hello"}) == "draining"
        assert [backend["draining"] for backend in (await cell.cell.status())["backends"]] == [False, True]
        await client.close()
        await session.close()

    on_cell(body, FIRST)


def test_commands_for_what_is_not_there_are_refused_in_one_line() -> None:
    async def body(cell: RunningCell) -> None:
        assert "no child 'nobody'" in (await cell.cell.command("kill", {"child": "nobody"}))["error"]
        assert (await cell.cell.command("sing", {"child": "router"})) == {"error": "a cell has no command 'sing'"}

    on_cell(body)
