"""How WebSockets end with their gateway: told in time, or cut, and a client that comes back is served."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.python_client import all_pages, connected, run, text_of
from tests.end_to_end.running_gateway import Form, RunningGateway

PATHS = ("/mcp/ws", "/mcp/websocket?vsn=2.0.0")
DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_gateway_that_is_told_to_end_tells_its_clients(form: Form, start_gateway: StartGateway) -> None:
    async def converse(gateway: RunningGateway) -> None:
        connections = [await connect(f"ws{gateway.url[4:]}{path}") for path in PATHS for _ in range(4)]
        gateway.terminate()
        for connection in connections:
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert (connection.close_code, connection.close_reason) == (1001, "the gateway is draining")

    with start_gateway(form, DEMO) as gateway:
        run(converse(gateway))


@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_call_that_runs_when_the_gateway_is_told_to_end_is_answered_first(
    form: Form, start_gateway: StartGateway, legacy_server: SdkServer
) -> None:
    async def converse(gateway: RunningGateway) -> None:
        tag = f"end of {form}"
        async with connected(f"ws{gateway.url[4:]}/mcp/ws", "legacy") as (client, _):
            await all_pages(client.list_tools, "tools", "name")  # or the client would want to after the call
            call = asyncio.ensure_future(client.call_tool("slow", {"seconds": 0.5, "tag": tag}))
            await asyncio.to_thread(legacy_server.wait_for, lambda counters: tag in counters["started"])
            gateway.terminate()
            assert text_of(await call) == "slept 0.5 s"

    with start_gateway(
        form, [{"name": "all", "prefix": "", "replicas": [legacy_server.url]}], gateway={"drain_timeout": 5.0}
    ) as gateway:
        run(converse(gateway))


def test_a_client_whose_cell_was_killed_is_cut_and_served_again(start_gateway: StartGateway) -> None:
    async def converse(gateway: RunningGateway) -> None:
        url = f"ws{gateway.url[4:]}/mcp/ws"
        async with connect(url) as connection:
            for pid in await asyncio.to_thread(gateway.cell_pids):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                await connection.recv()
            assert connection.close_code == 1006
        while True:
            try:
                async with connect(url) as connection:
                    await connection.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
                    assert json.loads(await connection.recv())["result"] == {}
                    return
            except (OSError, WebSocketException):
                await asyncio.sleep(0.05)

    with start_gateway("two cells", DEMO, expects_errors=True) as gateway:
        run(converse(gateway))
