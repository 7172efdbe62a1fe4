"""Phoenix clients and the gateway: the npm package as its users write it, and raw messages for what it hides."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException

from tests.conftest import StartGateway
from tests.doubles.phoenix_client import PhoenixClient, phoenix_client
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.python_client import run
from tests.end_to_end.running_gateway import Form, RunningGateway, wait_until
from tests.node.node_client import install_once

DEMO = [{"name": "demo", "prefix": "", "builtin": "demo"}]
GATEWAY_FORMS: tuple[Form, ...] = ("embedded", "two cells")
SCENARIO = Path(__file__).parents[1] / "node" / "phoenix_scenario.mjs"
TOPIC = "mcp:events"


class NodeScenario:
    """The npm client as a process. next: the next line that it prints, as JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def next(self, timeout_s: float = 20.0) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        assert line, self._process.stderr and self._process.stderr.read()
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def node_scenario(url: str, *options: str) -> Iterator[NodeScenario]:
    node = shutil.which("node")
    assert node, "Node.js 20 or newer is needed for the Phoenix client"
    install_once()
    command = [node, str(SCENARIO), f"ws{url[4:]}/mcp", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield NodeScenario(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.node_js
@pytest.mark.parametrize("form", GATEWAY_FORMS)
def test_the_npm_client_walks_through_a_channel(form: Form, start_gateway: StartGateway) -> None:
    with start_gateway(form, DEMO) as gateway, node_scenario(gateway.url) as scenario:
        seen = scenario.next()
    assert seen["joined"] == {"topic": "all"}
    assert seen["early"] == {"type": "response", "id": "req-123", "result": {"message": "Hello"}}
    assert seen["early"] in seen["responses"]
    assert (seen["pong"], seen["called"], seen["error"]) == ("pong", "hi", [9, -32601])
    assert seen["progress"] == [["slow-1", 1], ["slow-1", 2]]
    assert seen["binary"] == {"b": 1}
    assert (seen["left"], seen["unmatched"], seen["connected"]) == ({}, "unmatched topic", True)
    published = [each for each in seen["events"] if each["event"] == "client.hello"]
    assert [each["data"] for each in published] == [{"n": 1}]
    assert (seen["joins"], seen["closes"]) == (1, [])


@pytest.mark.node_js
def test_the_npm_client_reconnects_and_rejoins_after_its_cell_was_killed_and_misses_no_event(start_gateway: StartGateway) -> None:
    with start_gateway("two cells", DEMO, expects_errors=True) as gateway, node_scenario(gateway.url, "--cut") as scenario:
        scenario.next()
        for pid in gateway.cell_pids():
            os.kill(pid, signal.SIGKILL)
        run(publish_meanwhile(gateway))
        seen = scenario.next()
    assert seen["again"]["result"] == {"message": "again"}
    assert seen["closes"][0] == 1006
    assert seen["meanwhile"] == [1]


async def publish_meanwhile(gateway: RunningGateway) -> None:
    """From another client, as soon as any cell serves it."""
    while True:
        try:
            async with phoenix_client(gateway.url) as client:
                await client.join("mcp:client.meanwhile")
                reply = await client.ask("j1", "mcp:client.meanwhile", "event", {"event": "meanwhile", "data": {"n": 1}})
                assert reply.status == "ok"
                await client.event("client.meanwhile", "mcp:client.meanwhile")
                return
        except (OSError, WebSocketException):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("form", GATEWAY_FORMS)
def test_what_a_server_asks_reaches_the_channel_with_the_requests_id(
    form: Form, start_gateway: StartGateway, legacy_server: SdkServer
) -> None:
    async def converse(gateway: RunningGateway) -> None:
        async with phoenix_client(gateway.url, "vsn=2.0.0&user_id=ada") as client:
            await client.join()
            capabilities = {"elicitation": {}, "sampling": {}}
            info = {"name": "phoenix", "version": "1"}
            await client.request(
                "initialize", {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info}
            )
            await client.ask("j1", TOPIC, "request", {"method": "notifications/initialized"})
            call = {"method": "tools/call", "params": {"name": "elicit", "arguments": {}}, "id": "call-1"}
            ref = await client.push("j1", TOPIC, "request", call)
            asked = (await client.event("elicitation/create")).payload
            assert (asked["id"], "message" in asked["data"]) == ("call-1", True)
            answer = {"id": asked["request_id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
            assert (await client.ask("j1", TOPIC, "response", answer)).status == "ok"
            reply = await client.find(event="phx_reply", ref=ref)
            assert reply.response["result"]["content"][0]["text"] == "accept: Hello, Ada!"

    with start_gateway(form, [{"name": "all", "prefix": "", "replicas": [legacy_server.url]}]) as gateway:
        run(converse(gateway))


@pytest.mark.parametrize("form", GATEWAY_FORMS)
def test_a_stateless_client_of_a_modern_server_says_what_it_can_when_it_joins(
    form: Form, start_gateway: StartGateway, modern_server: SdkServer
) -> None:
    async def converse(gateway: RunningGateway) -> None:
        async with phoenix_client(gateway.url) as client:
            await client.join(payload={"capabilities": {"elicitation": {}}, "clientInfo": {"name": "phx", "version": "7"}})
            asked = (await client.request("tools/call", {"name": "elicit", "arguments": {}}))["result"]
            assert asked["resultType"] == "input_required"
            (name,) = asked["inputRequests"]
            answers = {name: {"action": "accept", "content": {"name": "Bo"}}}
            again = {"name": "elicit", "arguments": {}, "inputResponses": answers, "requestState": asked.get("requestState")}
            given = {key: value for key, value in again.items() if value is not None}
            answered = (await client.request("tools/call", given))["result"]
            assert answered["content"][0]["text"] == "accept: Hello, Bo!"

    with start_gateway(form, [{"name": "all", "prefix": "", "replicas": [modern_server.url]}]) as gateway:
        run(converse(gateway))


@pytest.mark.parametrize("form", GATEWAY_FORMS)
def test_an_event_reaches_sockets_of_every_cell_once(form: Form, start_gateway: StartGateway) -> None:
    async def converse(gateway: RunningGateway) -> None:
        async with AsyncClients(gateway.url, 20) as clients:
            for client in clients:
                await client.join("mcp:client.*")
            topics = [f"client.n{number}" for number in range(len(clients))]
            for client, topic in zip(clients, topics, strict=True):
                reply = await client.ask("j1", "mcp:client.*", "event", {"event": topic, "data": {}})
                assert reply.status == "ok"
            orders = []
            for client in clients:
                told = [await client.find(event="event") for _ in topics]
                assert sorted(each.payload["event"] for each in told) == sorted(topics)
                orders.append([each.payload["event_id"] for each in told])
            assert all(order == orders[0] == sorted(order) for order in orders)

    with start_gateway(form, DEMO) as gateway:
        run(converse(gateway))
        counts = gateway.metric_sum("mcp_gateway_events_delivered_total", transport="websocket")
        assert counts == 400
        wait_until(lambda: gateway.metric_sum("mcp_gateway_downstream_connections", transport="websocket") == 0, 5, "all gone")


class AsyncClients:
    """Several clients at once."""

    def __init__(self, url: str, count: int) -> None:
        self._url = url
        self._contexts = [phoenix_client(url) for _ in range(count)]

    async def __aenter__(self) -> list[PhoenixClient]:
        return [await context.__aenter__() for context in self._contexts]

    async def __aexit__(self, *_: object) -> None:
        for context in self._contexts:
            await context.__aexit__(None, None, None)
