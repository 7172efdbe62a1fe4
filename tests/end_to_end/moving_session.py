"""A client of 2025-11-25 that asks another node of a cluster with each request, over a connection of its own."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import Any

from tests.doubles.gateway_process import GatewayProcess

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class Answer:
    """What a POST was answered: the last message of its body, JSON or event stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        body = response.read()
        if response.headers.get("Content-Type", "").startswith("text/event-stream"):
            lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
            body = lines[-1]
        self.body: Any = json.loads(body) if body else None


def post(
    node: GatewayProcess, endpoint: str, method: str, params: Any, session_id: str = "", request_id: int | None = 1
) -> Answer:
    """Over a connection of its own."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    if session_id:
        headers |= {"Mcp-Session-Id": session_id, "MCP-Protocol-Version": "2025-11-25"}
    message = {"jsonrpc": "2.0", "method": method, "params": params, **({} if request_id is None else {"id": request_id})}
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(node.url).netloc, timeout=30)
    connection.request("POST", endpoint, json.dumps(message), headers)
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


class Session:
    """A client of 2025-11-25 that asks whichever node it is told to."""

    def __init__(self, node: GatewayProcess, endpoint: str) -> None:
        self.endpoint = endpoint
        opened = post(node, endpoint, "initialize", INITIALIZE)
        assert opened.status == 200, opened.body
        self.id = opened.headers["Mcp-Session-Id"]
        assert post(node, endpoint, "notifications/initialized", {}, self.id, None).status == 202

    def call(self, node: GatewayProcess, tool: str, **arguments: Any) -> Answer:
        return post(node, self.endpoint, "tools/call", {"name": tool, "arguments": arguments}, self.id)

    def text(self, node: GatewayProcess, tool: str, **arguments: Any) -> str:
        answer = self.call(node, tool, **arguments)
        assert answer.status == 200, answer.body
        text: str = answer.body["result"]["content"][0]["text"]
        return text

    def end(self, node: GatewayProcess) -> int:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(node.url).netloc, timeout=30)
        headers = {"Mcp-Session-Id": self.id, "MCP-Protocol-Version": "2025-11-25"}
        connection.request("DELETE", self.endpoint, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status
