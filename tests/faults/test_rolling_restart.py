"""Cells that are replaced in order, one after the other: who waits for one of them, or has left a call with it, loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from tests.conftest import StartGateway
from tests.doubles.calling_client import CallingClient
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.raw_http import Answer, ask_modern, request
from tests.end_to_end.running_gateway import RunningGateway
from tests.end_to_end.task_client import ModernTasks

_CAN_BE_ASKED = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}}
_ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}


def midway(gateway: RunningGateway, tag: str, **retry: Any) -> Answer:
    """Call the tool that asks, or go on with it; each on a connection of its own, which the kernel gives to any cell."""
    params = {"name": "midway", "arguments": {"tag": tag, "questions": 2}, **_CAN_BE_ASKED, **retry}
    return ask_modern(gateway.endpoint(), request("tools/call", params))


def answered(gateway: RunningGateway, tag: str, asked: Answer) -> Answer:
    result = asked.message["result"]
    responses = dict.fromkeys(result["inputRequests"], _ACCEPTED)
    return midway(gateway, tag, requestState=result["requestState"], inputResponses=responses)


def test_a_rolling_restart_waits_for_calls_that_are_parked_or_run_as_tasks(start_gateway: StartGateway) -> None:
    """Longer than a cell takes to end by itself; each call runs once, and its client is told what it has come to."""
    tags = [f"parked {number}" for number in range(8)]
    with start_sdk_server(name="legacy", era="legacy", midway=True) as server, ThreadPoolExecutor() as pool:
        backends = [{"name": "all", "prefix": "", "replicas": [server.url]}]
        with start_gateway("two cells", backends, gateway={"drain_timeout": 40.0}) as gateway:
            client = ModernTasks(gateway.endpoint())
            before = gateway.cell_pids()
            # 1. Calls that wait for their clients, and calls that run on, are left with both cells.
            asked = {tag: midway(gateway, tag) for tag in tags}
            begun = [pool.submit(client.call, "slow", seconds=6.0) for _ in range(6)]
            tasks = [each.result()["taskId"] for each in begun]
            # 2. Both cells are replaced, while the calls go on by way of the other one.
            restarting = pool.submit(gateway.admin, "restart", "--rolling")
            assert [client.outcome(task)["content"][0]["text"] for task in tasks] == ["slept 6 s"] * 6
            again = {tag: answered(gateway, tag, each) for tag, each in asked.items()}
            assert [answered(gateway, tag, each).text for tag, each in again.items()] == ["Ada, Ada"] * 8
            assert restarting.result() == (0, "cell/0 restarted\ncell/1 restarted\n")
            assert not set(before) & set(gateway.cell_pids())
        assert sorted(server.counters()["started"]) == sorted(tags + ["slow"] * 6)


def cells(gateway: RunningGateway) -> set[int]:
    """Processes, as they name themselves: no command has to be answered for that."""
    found = set()
    for process in gateway.processes():
        with contextlib.suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith("mcp-gateway: cell/"):
                found.add(process.pid)
    return found


def test_two_cells_that_are_restarted_at_once_refuse_nobody(start_gateway: StartGateway) -> None:
    """The second is told to end in the moment in which the first is back: it sends its clients there."""

    async def restart_both(gateway: RunningGateway) -> set[str]:
        clients = [await CallingClient(gateway.url, "legacy").open() for _ in range(8)]
        stop = asyncio.Event()
        calling = [asyncio.create_task(client.keep_calling(stop)) for client in clients]
        before = cells(gateway)
        await asyncio.gather(*(asyncio.to_thread(gateway.admin, "restart", cell) for cell in ("cell/0", "cell/1")))
        async with asyncio.timeout(90):
            while len(cells(gateway) - before) < 2:
                await asyncio.sleep(0.1)
        stop.set()
        await asyncio.gather(*calling)
        for client in clients:
            await client.close()
        return {each.outcome for client in clients for each in client.ended}

    with start_gateway("two cells", [{"name": "demo", "prefix": "", "builtin": "demo"}]) as gateway:
        assert asyncio.run(restart_both(gateway)) == {"ok"}
