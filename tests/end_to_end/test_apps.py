"""Interfaces of MCP Apps: what a tool names can be read, by clients of both eras, behind both endpoints.

Source: MCP Apps (ext-apps) 2026-01-26, "UI Resource Format", "Resource Discovery", "Capability Negotiation".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.scripted_upstreams import EchoUpstream, ScriptedUpstream, result_of, send
from tests.end_to_end.raw_http import ask, ask_modern, open_session, request
from tests.end_to_end.running_gateway import RunningGateway

EXTENSIONS = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}
VIEW, OUTER_VIEW = "ui://board/main.html", "ui://apps/board/main.html"
META = {"ui": {"resourceUri": VIEW}, "ui/resourceUri": VIEW}
RESULTS: Mapping[str, Any] = {
    "tools/list": {"tools": [{"name": "board", "inputSchema": {"type": "object"}, "_meta": META}]},
    "tools/call": {"content": [{"type": "resource_link", "uri": VIEW, "name": "view"}], "_meta": META},
    "resources/list": {"resources": [{"uri": VIEW, "name": "view"}]},
}

Ask = Callable[..., Any]


class AppsServer(ScriptedUpstream):
    """A legacy server with one interface, known under its own name only."""

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        method = request.get("method", "")
        if "id" not in request:
            await send(writer, b"", status="202 Accepted" if method else "405 Method Not Allowed")
            return
        told: dict[str, Any] = {"error": {"code": -32601, "message": "unknown"}}
        if method == "initialize":
            capabilities = {"tools": {}, "resources": {}, "extensions": EXTENSIONS}
            told = {"result": {**result_of(request), "capabilities": capabilities}}
        elif method == "resources/read" and request["params"]["uri"] == VIEW:
            told = {"result": {"contents": [{"uri": VIEW, "text": "<html></html>"}]}}
        elif method in RESULTS:
            told = {"result": RESULTS[method]}
        await send(writer, json.dumps({"jsonrpc": "2.0", "id": request["id"], **told}).encode())


@pytest.fixture(scope="module")
def server() -> Iterator[AppsServer]:
    with AppsServer() as apps:
        yield apps


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway, server: AppsServer) -> Iterator[RunningGateway]:
    with EchoUpstream() as other:
        backends = [{"name": "apps", "replicas": [server.url]}, {"name": "other", "replicas": [other.url]}]
        with start_gateway("embedded", backends) as gateway:
            yield gateway


def client(era: str, url: str) -> Ask:
    session = open_session(url) if era == "legacy" else {}

    def ask_for(method: str, **params: Any) -> Any:
        message = request(method, params)
        answer = ask(url, message, session) if era == "legacy" else ask_modern(url, message)
        return answer.message["result"]

    return ask_for


@pytest.mark.parametrize("era", ["legacy", "modern"])
@pytest.mark.parametrize(("endpoint", "prefix", "view"), [("", "apps__", OUTER_VIEW), ("apps", "", VIEW)])
def test_what_a_tool_names_is_read_under_that_name(
    gateway: RunningGateway, era: str, endpoint: str, prefix: str, view: str
) -> None:
    ask_for = client(era, gateway.endpoint(endpoint))
    tool = ask_for("tools/list")["tools"][0]
    called = ask_for("tools/call", name=f"{prefix}board", arguments={})
    shown = {"ui": {"resourceUri": view}, "ui/resourceUri": view}
    assert (tool["name"], tool["_meta"]) == (f"{prefix}board", shown)
    assert {name: called["_meta"][name] for name in shown} == shown
    assert called["content"][0]["uri"] == view
    assert [each["uri"] for each in ask_for("resources/list")["resources"]] == [view]
    assert ask_for("resources/read", uri=view)["contents"][0]["uri"] == view


@pytest.mark.parametrize("endpoint", ["", "apps"])
def test_the_extension_is_announced_to_clients_of_both_eras_and_theirs_to_the_server(
    gateway: RunningGateway, server: AppsServer, endpoint: str
) -> None:
    url = gateway.endpoint(endpoint)
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"extensions": EXTENSIONS},
        "clientInfo": {"name": "c", "version": "1"},
    }
    opened = ask(url, request("initialize", params)).message["result"]
    able = {"_meta": {"io.modelcontextprotocol/clientCapabilities": {"extensions": EXTENSIONS}}}
    discovered = ask_modern(url, request("server/discover", able)).message["result"]
    assert opened["capabilities"]["extensions"] == EXTENSIONS
    tasks_of_ours = {"io.modelcontextprotocol/tasks": {}}
    assert discovered["capabilities"]["extensions"] == {**EXTENSIONS, **tasks_of_ours}
    openings = [each["params"] for each in server.requests if each.get("method") == "initialize"]
    told = [params["capabilities"] for params in openings if params["clientInfo"]["name"] == "raw"]
    assert {"extensions": EXTENSIONS} in told, "the modern client's, in the handshake that stands for it"
