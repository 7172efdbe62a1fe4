"""What a crash of each in-process actor does while clients call tools: it and those after it restart, and nobody is cut off.

A cell on the test's own loop, and a node of real processes that `mcp-gateway kill` reaches into; a server of the official SDK.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import psutil
import pytest

from mcp_gateway.actors.cell.gateway_supervisor import GATEWAY_CHILDREN
from tests.doubles.calling_client import CallingClient, SessionStreamReader
from tests.doubles.gateway_process import GatewayProcess
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell
from tests.doubles.sdk_server import SdkServer, start_sdk_server

CRASHES = (*GATEWAY_CHILDREN, "edge")
BACK_S = 0.5
"""Within this time everything is back, and somebody is served."""

Rows = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[SdkServer]:
    with start_sdk_server(name="both", era="both") as running:
        yield running


def backends(server: SdkServer) -> list[dict[str, Any]]:
    return [{"name": "all", "prefix": "", "replicas": [server.url]}]


@attrs.frozen
class Gateway:
    """How a test reaches a gateway of either form."""

    url: str
    crash: Callable[[str], Awaitable[None]]
    rows: Callable[[], Awaitable[Rows]]
    status: Callable[[], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def cell_on_this_loop(server: SdkServer) -> AsyncIterator[tuple[Gateway, RunningCell]]:
    async with running_cell(cell_settings(backends(server))) as cell:

        async def crash(child: str) -> None:
            await cell.command("kill", child)

        yield Gateway(cell.url, crash, cell.rows, cell.cell.status), cell


def node(process: GatewayProcess) -> Gateway:
    async def crash(child: str) -> None:
        done = await asyncio.to_thread(process.command, "kill", f"cell/0/{child}")
        assert done.returncode == 0, done.stderr

    async def rows() -> Rows:
        return await asyncio.to_thread(process.rows)

    async def status() -> dict[str, Any]:
        return await asyncio.to_thread(process.status)

    return Gateway(process.url, crash, rows, status)


def node_config(server: SdkServer) -> str:
    return f'[[backends]]\nname = "all"\nprefix = ""\nreplicas = ["{server.url}"]\n'


# ---- one crash


def restarted_by(child: str) -> set[str]:
    """Short names of what a crash of this child starts again."""
    return {"edge"} if child == "edge" else set(GATEWAY_CHILDREN[GATEWAY_CHILDREN.index(child) :])


def outcomes_allowed(child: str) -> set[str]:
    """What clients may read while this child restarts.

    Router, monitor and identity hold no call, so nobody notices; the pool takes its connections along, the edge its calls.
    """
    return {"ok"} if child in ("router", "health-monitor", "identity") else {"ok", "upstream_failed"}


def check_restarts(child: str, before: Rows, after: Rows) -> float:
    """It and exactly those after it have new incarnations, and the rest has not been touched; gives how long the chain took."""
    again = restarted_by(child)
    for short_name in CRASHES:
        name = f"cell/0/{short_name}"
        expected = before[name]["incarnation"] + (short_name in again)
        assert after[name]["incarnation"] == expected, f"{name} after the crash of {child}"
        if short_name not in again:
            assert after[name]["uptime_seconds"] > before[name]["uptime_seconds"]
    for name in ("cell/0/gateway-supervisor", "cell/0"):
        if name in before:
            assert (after[name]["incarnation"], after[name]["pid"]) == (before[name]["incarnation"], before[name]["pid"])
    uptimes = [after[f"cell/0/{name}"]["uptime_seconds"] for name in again]
    pool, upstream = (f"cell/0/connection-pool{child}" for child in ("", "/all#0"))
    if "connection-pool" in again:
        assert after[upstream]["uptime_seconds"] <= after[pool]["uptime_seconds"]
    else:
        assert after[upstream]["uptime_seconds"] > before[upstream]["uptime_seconds"]
    return float(max(uptimes) - min(uptimes))


def longest_pause_s(clients: list[CallingClient], since_s: float) -> float:
    """Between two good answers to anybody, from `since_s` to now."""
    times = sorted(each.at_s for client in clients for each in client.ended if each.outcome == "ok" and each.at_s >= since_s)
    return max(later - earlier for earlier, later in pairwise([since_s, *times, time.monotonic()]))


async def notice(client: CallingClient, stream: SessionStreamReader) -> None:
    """The server says something on its own, and it arrives on the client's open stream; repairing that may take a second."""
    seen = len(stream.methods)
    async with asyncio.timeout(8):
        number = 0
        while len(stream.methods) == seen:
            assert stream.is_open, "the stream has ended"
            number += 1
            for tool in ("add_tool", "remove_tool"):
                assert await client.call(tool, {"name": "extra"}) == "ok"
            await asyncio.sleep(0.1)
    assert stream.methods[seen] == "notifications/tools/list_changed"


async def answered_by_all(clients: list[CallingClient]) -> None:
    """Each client has had a good answer after this moment."""
    since_s = time.monotonic()
    async with asyncio.timeout(5):
        while not all("ok" in client.outcomes_since(since_s) for client in clients):
            await asyncio.sleep(0.01)


async def crash_each_in_turn(gateway: Gateway) -> list[str]:
    """Crash each, check, and give the short names of what crashed, in order.

    What takes longer than it may is crashed again, twice at most: the gateway is slow each time, a machine with
    other work is not.
    """
    crashed: list[str] = []
    clients = [await CallingClient(gateway.url, era).open() for era in ("legacy", "modern") * 3]
    listener = await CallingClient(gateway.url, "legacy").open()
    stream = await SessionStreamReader(listener).open()
    stop = asyncio.Event()
    calling = [asyncio.create_task(client.keep_calling(stop)) for client in clients]

    async def crash(child: str) -> float:
        """Gives for how long it was away: to the supervisors, or to the clients if that was longer."""
        before = await gateway.rows()
        # 1. The crash, and what the supervisors made of it.
        crashed_s = time.monotonic()
        crashed.append(child)
        await gateway.crash(child)
        await answered_by_all(clients)
        chain_s = check_restarts(child, before, await gateway.rows())
        # 2. What the clients saw of it.
        outcomes = set[str]().union(*(client.outcomes_since(crashed_s) for client in clients))
        assert outcomes <= outcomes_allowed(child), f"after the crash of {child}"
        pause_s = longest_pause_s(clients, crashed_s)
        # 3. The stream of a session still carries what its server says.
        await notice(listener, stream)
        return max(chain_s, pause_s)

    try:
        await notice(listener, stream)
        await answered_by_all(clients)
        for child in CRASHES:
            took_s = [await crash(child)]
            while took_s[-1] >= BACK_S and len(took_s) < 3:
                took_s.append(await crash(child))
            assert took_s[-1] < BACK_S, f"after three crashes of {child}: {took_s}"
    finally:
        stop.set()
        ended = await asyncio.gather(*calling, return_exceptions=True)
        await stream.close()
        for client in (*clients, listener):
            await client.close()
    assert ended == [None] * len(clients)
    # 4. Nobody ever had to connect again, and every call has ended.
    assert [client.connections for client in (*clients, listener)] == [1] * (len(clients) + 1)
    replica = (await gateway.status())["backends"][0]["replicas"][0]
    assert (replica["pool"]["leased"], replica["pool"]["waiting"], replica["health"]) == (0, 0, "healthy")
    return crashed


def test_a_crash_of_each_actor_of_a_cell_cuts_nobody_off(server: SdkServer) -> None:
    async def body() -> None:
        async with cell_on_this_loop(server) as (gateway, cell):
            crashed = await crash_each_in_turn(gateway)
            assert cell.link.stops == []
            exited = [event.payload["child"] for event in cell.link.events if event.topic == "mcp.supervisor.child_exited"]
            assert exited == [f"cell/0/{name}" for name in crashed]

    asyncio.run(body())


def test_a_crash_of_each_actor_in_a_node_cuts_nobody_off(server: SdkServer, tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", cell_factory=None, settings=node_config(server)) as process:
        asyncio.run(crash_each_in_turn(node(process)))
        assert process.end() == 0
        assert process.left_over() == []


# ---- many crashes


def test_twenty_crashes_leave_nothing_behind(server: SdkServer) -> None:
    """Both supervisors of a cell allow 10 restarts in 10 s: ten crashes of the chain and ten of the edge are just below."""

    async def body() -> None:
        async with cell_on_this_loop(server) as (gateway, cell):
            clients = [await CallingClient(gateway.url, era).open() for era in ("legacy", "modern")]
            stop = asyncio.Event()
            calling = [asyncio.create_task(client.keep_calling(stop)) for client in clients]
            await gateway.crash("event-bus")
            await gateway.crash("edge")
            await answered_by_all(clients)
            actors, tasks = cell.actor_count(), len(asyncio.all_tasks())
            memory_bytes = psutil.Process().memory_info().rss
            for number in range(9):
                await gateway.crash(GATEWAY_CHILDREN[number % len(GATEWAY_CHILDREN)])
                await asyncio.sleep(0.3)
                await gateway.crash("edge")
                await asyncio.sleep(0.3)
            await answered_by_all(clients)
            # The pool's gauges, the monitor's rounds: what a crashed actor had set off must not run on.
            assert cell.actor_count() == actors
            assert psutil.Process().memory_info().rss - memory_bytes < 15_000_000
            assert len(asyncio.all_tasks()) <= tasks + 4  # upstreams that close their connections in the background
            stop.set()
            await asyncio.gather(*calling)
            replica = (await gateway.status())["backends"][0]["replicas"][0]
            assert (replica["pool"]["leased"], replica["pool"]["waiting"]) == (0, 0)
            assert cell.cell._port.waiting == {}
            assert [client.connections for client in clients] == [1, 1]
            assert set[str]().union(*(client.outcomes_since(0) for client in clients)) <= {"ok", "upstream_failed"}
            rows = await gateway.rows()
            assert rows["cell/0/edge"]["restarts"] == 10
            assert rows["cell/0/identity"]["restarts"] == 10
            assert cell.link.stops == []
            for client in clients:
                await client.close()

    asyncio.run(body())


@pytest.mark.parametrize("child", ["router", "edge"])
def test_too_many_crashes_ask_the_node_for_another_cell(child: str) -> None:
    async def body() -> None:
        async with running_cell(cell_settings()) as cell:
            for _ in range(10):
                await cell.command("kill", child)
            assert cell.link.stops == []
            await cell.command("kill", child)
            assert len(cell.link.stops) == 1
            assert "mcp.supervisor.escalated" in cell.link.topics()

    asyncio.run(body())


KILL_ROUTER_OFTEN = """
import sys
from pathlib import Path
from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.scripts.commands.admin_client import attach
state_dir, port = sys.argv[1:]
settings = settings_from_mapping({"gateway": {"state_dir": state_dir}, "actor_system": {"admin_port": int(port)}}, "test")
with attach(settings) as client:
    for _ in range(11):
        print(client.command("kill", {"child": "cell/0/router"}), flush=True)
"""


async def first_answer_s(url: str) -> float:
    """When a new client is served again: for a moment there is nobody to connect to, or nobody who knows the backends."""
    client = CallingClient(url, "modern")
    async with asyncio.timeout(10):
        while True:
            try:
                if await client.call("echo", {"message": "after"}) == "ok":
                    break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.02)
    await client.close()
    return time.monotonic()


def test_too_many_crashes_replace_the_cell_process_within_3_s(server: SdkServer, tmp_path: Path) -> None:
    """By the admin client itself: eleven runs of the command would take about as long as the period of the intensity."""
    with GatewayProcess(tmp_path / "state", cell_factory=None, settings=node_config(server)) as process:

        async def body() -> None:
            before = await node(process).rows()
            client = await CallingClient(process.url, "modern").open()
            assert await client.call("echo", {"message": "before"}) == "ok"
            program = [sys.executable, "-c", KILL_ROUTER_OFTEN, str(process.state_dir), str(process.admin_port)]
            done = await asyncio.to_thread(subprocess.run, program, capture_output=True, text=True, timeout=30, check=False)
            gone_s = time.monotonic()
            assert done.returncode == 0, done.stderr
            served_s = await first_answer_s(process.url)
            assert served_s - gone_s < 3
            await client.close()
            after = await node(process).rows()
            assert after["cell/0"]["pid"] != before["cell/0"]["pid"]
            assert after["cell/0"]["restarts"] == 1
            unharmed = ("launcher", "admin", "node-supervisor", "event-log")
            assert [after[name]["pid"] for name in unharmed] == [before[name]["pid"] for name in unharmed]

        asyncio.run(body())
        assert process.end() == 0
        assert process.left_over() == []
