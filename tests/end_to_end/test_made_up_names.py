"""Clients that make names up, on every transport: the gateway's numbers stay as few as they are."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.conftest import StartGateway
from tests.end_to_end.raw_http import MODERN, ask, ask_modern, open_session, request, tool_call
from tests.end_to_end.running_gateway import Form, RunningGateway

_META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
_UNLISTED = 20
"""Tools of each backend that are shown by name without having been listed; a cell and an outcome have each their own."""


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    backends = [{"name": "demo", "builtin": "demo"}, {"name": "more", "builtin": "demo"}]
    with start_gateway(request.param, backends) as gateway:
        yield gateway


def streamable_http(gateway: RunningGateway, name: str) -> None:
    for endpoint in (f"{gateway.url}/mcp/servers/{name}", f"{gateway.url}/mcp/servers/demo", f"{gateway.url}/mcp"):
        ask_modern(endpoint, tool_call(name))
        ask_modern(endpoint, request(name))
        ask(endpoint, request(name), {"Mcp-Session-Id": name, "Mcp-Protocol-Version": name, "X-Trace": name})
    session = open_session(f"{gateway.url}/mcp")
    ask(f"{gateway.url}/mcp", request(f"prompts/{name}"), session)
    ask(f"{gateway.url}/mcp", b"", session, verb="DELETE")


def http_sse(gateway: RunningGateway, name: str) -> None:
    for path in (f"/mcp/sse/connect?backend={name}&user_id={name}", "/mcp/servers/demo/sse", f"/mcp/servers/{name}/sse"):
        with suppress(OSError), urllib.request.urlopen(f"{gateway.url}{path}", timeout=5) as stream:
            lines = iter(stream.readline, b"")
            posts = next(line[6:].decode().strip() for line in lines if line.startswith(b"data: "))
            address = f"{gateway.url}/mcp/sse/messages?{posts.partition('?')[2]}"
            ask(address, {**tool_call(name), "params": {"name": name, "_meta": _META}})
            next(line for line in lines if line.startswith(b'data: {"jsonrpc'))


def websocket(gateway: RunningGateway, name: str) -> None:
    for query in ("", f"?backend={name}", "?backend=demo"):
        with suppress(OSError, WebSocketException):
            with connect(f"ws{gateway.url[4:]}/mcp/ws{query}", open_timeout=5, close_timeout=1) as socket:
                for message in (tool_call(name), request(name)):
                    socket.send(json.dumps({**message, "params": {**message.get("params", {}), "_meta": _META}}))
                    socket.recv(timeout=5)


def phoenix(gateway: RunningGateway, name: str) -> None:
    with connect(f"ws{gateway.url[4:]}/mcp/websocket?vsn=2.0.0&user_id={name}", open_timeout=5, close_timeout=1) as socket:

        def push(ref: str, event: str, payload: object) -> None:
            socket.send(json.dumps(["1", ref, f"mcp:client.{name}", event, payload]))
            while json.loads(socket.recv(timeout=5))[1] != ref:
                pass

        push("1", "phx_join", {})
        push("2", "event", {"event": name, "data": {}})
        push("3", "request", {"method": "tools/call", "params": {"name": name, "_meta": _META}, "id": name})
        push("4", "request", {"method": name, "params": {"_meta": _META}, "id": name})
        push("5", name, {})


def topics_and_paths(gateway: RunningGateway, name: str) -> None:
    for path in (f"/mcp/sse/events/client.{name}", f"/mcp/sse/events/{name}", f"/{name}", f"/metrics?x={name}"):
        with suppress(OSError), urllib.request.urlopen(f"{gateway.url}{path}", timeout=5) as stream:
            stream.readline()


@pytest.mark.parametrize("storm", [streamable_http, http_sse, websocket, phoenix, topics_and_paths])
def test_a_storm_of_made_up_names_adds_no_series(gateway: RunningGateway, storm: Callable[[RunningGateway, str], None]) -> None:
    def blow(prefix: str, count: int) -> None:
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda number: storm(gateway, f"{prefix}-{number}"), range(count)))

    cells = 2 if gateway.form == "two cells" else 1
    # 1. What is shown of the first of them, by every cell.
    blow("early", 2 * cells * _UNLISTED)
    before = gateway.metrics().keys()
    # 2. No more of the next.
    blow("late", 60)
    grown = [key for key in gateway.metrics().keys() - before if "late" in str(key)]
    assert len(grown) <= cells * _UNLISTED, grown  # of a cell that has seen few of the first
    assert not [key for key in gateway.metrics() if "backend" in dict(key[1]) and "-" in dict(key[1])["backend"]]
    assert len(gateway.metrics().keys() - before) <= 30 + cells * _UNLISTED


def test_a_tool_that_its_server_lists_has_its_name_also_after_a_storm(start_gateway: StartGateway) -> None:
    form: Form = "embedded"
    with start_gateway(form, [{"name": "demo", "builtin": "demo"}]) as gateway:
        endpoint = gateway.endpoint("demo")
        for number in range(_UNLISTED + 5):
            ask_modern(endpoint, tool_call(f"made-up-{number}"))
        assert ask_modern(endpoint, tool_call("echo", {"message": "x"})).status == 200
        calls = "mcp_gateway_tool_calls_total"
        assert gateway.metric_sum(calls, tool="echo") == 0
        assert ask_modern(endpoint, request("tools/list")).status == 200
        for asked, name in ((endpoint, "echo"), (gateway.endpoint(), "demo__echo")):
            assert ask_modern(asked, tool_call(name, {"message": "x"})).status == 200
            assert gateway.metric_sum(calls, backend="demo", tool=name, outcome="ok") == 1
        assert gateway.metric_sum(calls, tool="other") == 6
