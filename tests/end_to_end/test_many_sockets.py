"""As many WebSockets on one cell as the settings allow: what one costs, and that one more is refused."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from tests.conftest import StartGateway
from tests.doubles.raw_websocket import RawWebSocket
from tests.end_to_end.python_client import run
from tests.end_to_end.running_gateway import RunningGateway

COUNT = 1_000
MOST_BYTES_EACH = 25_000


@pytest.mark.parametrize("path", ["/mcp/ws", "/mcp/websocket?vsn=2.0.0"])
def test_a_thousand_idle_sockets_cost_little_and_one_more_is_refused(path: str, start_gateway: StartGateway) -> None:
    async def converse(gateway: RunningGateway) -> None:
        async with AsyncExitStack() as warm_up:
            await connect(warm_up, gateway, path, 50)
        before = gateway.memory_bytes()
        async with AsyncExitStack() as stack:
            await connect(stack, gateway, path, COUNT)
            grown = gateway.memory_bytes() - before
            assert grown < COUNT * MOST_BYTES_EACH, f"{grown / COUNT:.0f} bytes for each"
            async with RawWebSocket(gateway.port, path) as one_more:
                assert (one_more.status, one_more.headers["retry-after"]) == (503, "1")
                assert json.loads(one_more.body)["error"]["data"]["reason"] == "too_many_connections"

    everything = {"max_share_per_address": 1.0}  # for one address: it has all of them here
    with start_gateway("embedded", [{"name": "demo", "prefix": "", "builtin": "demo"}], gateway=everything) as gateway:
        run(converse(gateway), timeout_s=90)


async def connect(stack: AsyncExitStack, gateway: RunningGateway, path: str, count: int) -> list[RawWebSocket]:
    clients: list[RawWebSocket] = []
    while len(clients) < count:
        some = [RawWebSocket(gateway.port, path) for _ in range(min(100, count - len(clients)))]
        clients += await asyncio.gather(*(stack.enter_async_context(each) for each in some))
    assert {client.status for client in clients} == {101}
    return clients
