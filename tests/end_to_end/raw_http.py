"""Plain HTTP to a gateway, for what MCP clients hide: status, headers, framing, sessions."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
BOTH_ANSWERS = "application/json, text/event-stream"
_ids = itertools.count(1)


@attrs.frozen
class Answer:
    """One HTTP response. headers: lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def messages(self) -> list[Any]:
        """The JSON-RPC messages of the body, whichever way they are framed."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            return list(messages_in(self.body))
        return [json.loads(self.body)]

    @property
    def message(self) -> Any:
        """The response: the last message."""
        return self.messages[-1]

    @property
    def reason(self) -> str:
        reason: str = self.message["error"]["data"]["reason"]
        return reason

    @property
    def text(self) -> str:
        """The text of a tool's result."""
        text: str = self.message["result"]["content"][0]["text"]
        return text


def messages_in(events: bytes) -> Iterator[Any]:
    for event in events.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:"))
        if data:
            yield json.loads(data)


def ask(
    url: str,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
    *,
    verb: str = "POST",
    timeout_s: float = 15.0,
    source: str = "",
) -> Answer:
    """One request on a connection of its own. body: bytes as they are, an iterator in chunks, anything else as JSON.

    source: the client's address, "" for the usual one; any of 127.0.0.0/8 is another client on this machine.
    """
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=timeout_s, source_address=(source, 0) if source else None)
    is_raw = isinstance(body, bytes) or hasattr(body, "__next__")
    sent: Any = body if is_raw else json.dumps(body).encode()
    try:
        shown = {"Content-Type": "application/json", "Accept": BOTH_ANSWERS, **(headers or {})}
        connection.request(verb, f"/{path}", sent or None, shown)
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def request(method: str, params: Mapping[str, Any] | None = None, *, request_id: object = None) -> dict[str, Any]:
    """A JSON-RPC request of the legacy era."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": next(_ids) if request_id is None else request_id, "method": method}
    return message if params is None else message | {"params": dict(params)}


def tool_call(name: str, arguments: Mapping[str, Any] | None = None, *, request_id: object = None) -> dict[str, Any]:
    return request("tools/call", {"name": name, "arguments": dict(arguments or {})}, request_id=request_id)


def modern(message: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """(body, headers) of a request in the stateless revision."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {**message.get("params", {})}
    params["_meta"] = {**meta, **params.get("_meta", {})}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": message["method"]}
    item = params.get("uri" if message["method"] == "resources/read" else "name")
    if isinstance(item, str) and message["method"] in ("tools/call", "prompts/get", "resources/read"):
        headers["Mcp-Name"] = item
    return message | {"params": params}, headers


def ask_modern(url: str, message: dict[str, Any], **options: Any) -> Answer:
    body, headers = modern(message)
    return ask(url, body, headers, **options)


def open_session(url: str, more_headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """Do the handshake of the legacy era; the headers that belong to the session from then on, `more_headers` included."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    opened = ask(url, request("initialize", params), more_headers)
    assert opened.status == 200, opened
    headers = {**(more_headers or {}), "Mcp-Session-Id": opened.headers["mcp-session-id"], "MCP-Protocol-Version": LEGACY}
    told = ask(url, {"jsonrpc": "2.0", "method": "notifications/initialized"}, headers)
    assert told.status == 202, told
    return headers
