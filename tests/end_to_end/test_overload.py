"""A server whose connections are all taken: what control traffic, and whoever asks the gateway itself, still gets through."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.python_client import connected, run, text_of
from tests.end_to_end.raw_http import LEGACY, ask, open_session, request, tool_call
from tests.end_to_end.running_gateway import RunningGateway

Full = tuple[RunningGateway, SdkServer]
_AT_ONCE_S = 15.0
"""On any machine; far below the checkout timeout that anything would wait for which needs a connection."""


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def narrow(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[Full]:
    """A gateway that carries one call at a time, in each cell."""
    gateway_table = {"max_overflow": 0, "checkout_timeout": 60.0}
    with start_sdk_server(era="legacy", midway=True) as server:
        backend = {"name": "b", "prefix": "", "replicas": [server.url], "pool_size": 1}
        with start_gateway(request.param, [backend], gateway=gateway_table) as gateway:
            yield gateway, server


def test_a_call_that_asks_its_client_is_answered_though_it_holds_the_only_connection(narrow: Full) -> None:
    gateway, _ = narrow

    async def converse() -> str:
        async with connected(gateway.endpoint(), "legacy") as (client, record):
            answer = await asyncio.wait_for(client.call_tool("midway", {"tag": "full", "questions": 3}), _AT_ONCE_S)
            assert len(record.questions) == 3
            return text_of(answer)

    assert "Ada" in run(converse())


def test_a_cancellation_reaches_the_server_while_calls_hold_and_wait_for_its_only_connection(narrow: Full) -> None:
    gateway, server = narrow
    session = open_session(gateway.endpoint())
    tag = f"held {gateway.form}"
    calls = [tool_call("slow", {"seconds": 60, "tag": tag}, request_id=number) for number in (71, 72, 73)]
    threads = [threading.Thread(target=ask, args=(gateway.endpoint(), call, session), daemon=True) for call in calls]
    threads[0].start()
    server.wait_for(lambda counters: tag in counters["started"])
    for thread in threads[1:]:
        thread.start()

    # 1. What the gateway answers by itself does so at once.
    began_s = time.monotonic()
    assert ask(gateway.endpoint(), request("ping"), session).status == 200
    assert gateway.health()["status"] in ("healthy", "degraded")
    assert gateway.metric_sum("mcp_gateway_pool_connections", state="leased") >= 0
    if gateway.form != "embedded":
        assert gateway.status()["backends"]
    assert time.monotonic() - began_s < _AT_ONCE_S

    # 2. The server hears of the end of the call that it runs, and of that of the others before they have begun.
    for number in (72, 73, 71):
        params = {"requestId": number, "reason": "test"}
        told = ask(gateway.endpoint(), {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}, session)
        assert told.status == 202
    server.wait_for(lambda counters: tag in counters["cancelled"], _AT_ONCE_S)

    # 3. The end of the session, too, waits for nobody.
    began_s = time.monotonic()
    assert ask(gateway.endpoint(), b"", {**session, "MCP-Protocol-Version": LEGACY}, verb="DELETE").status in (200, 204)
    assert time.monotonic() - began_s < _AT_ONCE_S
    for thread in threads:
        thread.join(15)
