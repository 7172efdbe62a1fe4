"""A client that calls tools without pause over one keep-alive connection, and writes down how each call ended."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Literal

import aiohttp
import attrs

from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS

Era = Literal["legacy", "modern"]
_LEGACY, _MODERN = "2025-11-25", "2026-07-28"


@attrs.frozen
class Ended:
    """One call. outcome: "ok", or the reason of the refusal. at_s: when it ended, monotonic."""

    tool: str
    outcome: str
    at_s: float
    took_s: float


class CallingClient:
    """Speaks one era to `url`/mcp. `connections` counts the TCP connections it ever made; pooled: at most one at a time.

    Anything but a result or a refusal of the documented table raises: a broken connection, a bare status, a foreign id.
    """

    def __init__(self, url: str, era: Era) -> None:
        self.era = era
        self.url = f"{url}/mcp"
        self.connections = 0
        self.ended: list[Ended] = []
        self.session_id = ""
        self._count = 0
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._on_connection)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, keepalive_timeout=300), trace_configs=[trace],
            timeout=aiohttp.ClientTimeout(total=20),
        )  # fmt: skip

    async def _on_connection(self, *_: object) -> None:
        self.connections += 1

    async def open(self) -> CallingClient:
        if self.era == "legacy":
            params = {"protocolVersion": _LEGACY, "capabilities": {}, "clientInfo": {"name": "caller", "version": "1"}}
            opened = await self._post("initialize", params)
            assert "result" in opened, opened
            await self._notify("notifications/initialized")
        return self

    async def close(self) -> None:
        await self._http.close()

    # ---- calls

    async def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Call a tool; gives how it ended."""
        started_s = time.monotonic()
        message = await self._post("tools/call", {"name": tool, "arguments": arguments})
        if "result" in message:
            assert message["result"].get("isError") is not True, message
            outcome = "ok"
        else:
            outcome = message["error"]["data"]["reason"]
            assert message["error"]["code"] == REFUSALS[outcome].code
        now_s = time.monotonic()
        self.ended.append(Ended(tool, outcome, now_s, now_s - started_s))
        return outcome

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The response to any other request."""
        return await self._post(method, params)

    async def keep_calling(self, stop: asyncio.Event, slow_s: float = 0.05) -> None:
        """Call a quick tool and a slow one in turn until told to stop."""
        while not stop.is_set():
            await self.call("echo", {"message": "hello"})
            await self.call("slow", {"seconds": slow_s})
            await asyncio.sleep(0.01)

    def outcomes_since(self, at_s: float) -> set[str]:
        return {each.outcome for each in self.ended if each.at_s >= at_s}

    # ---- the wire

    def _headers(self, method: str, params: dict[str, Any]) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.era == "modern":
            headers |= {"MCP-Protocol-Version": _MODERN, "Mcp-Method": method}
            if "name" in params:
                headers["Mcp-Name"] = params["name"]
        elif self.session_id:
            headers |= {"MCP-Protocol-Version": _LEGACY, "Mcp-Session-Id": self.session_id}
        return headers

    async def _post(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        headers = self._headers(method, params)
        if self.era == "modern":
            prefix = "io.modelcontextprotocol/"
            who = {"name": "caller", "version": "1"}
            meta = {f"{prefix}protocolVersion": _MODERN, f"{prefix}clientInfo": who, f"{prefix}clientCapabilities": {}}
            params = {**params, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": self._count, "method": method, "params": params}
        async with self._http.post(self.url, json=body, headers=headers) as response:
            text = await response.text()
            self.session_id = response.headers.get("Mcp-Session-Id", self.session_id)
        message = _last_message(text) if response.content_type == "text/event-stream" else json.loads(text)
        assert message.get("id") == self._count, (response.status, text[:500])
        assert ("result" in message) != ("error" in message)
        if "error" in message and response.content_type == "application/json":
            assert response.status >= 400, (response.status, text)
        return dict(message)

    async def _notify(self, method: str) -> None:
        body = {"jsonrpc": "2.0", "method": method}
        async with self._http.post(self.url, json=body, headers=self._headers(method, {})) as response:
            assert response.status == 202, await response.text()


class SessionStreamReader:
    """Holds the GET stream of a client's session open, on a connection of its own. methods: of the messages that came."""

    def __init__(self, client: CallingClient) -> None:
        self.methods: list[str] = []
        self.is_open = False
        self._client = client
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> SessionStreamReader:
        self._task = asyncio.create_task(self._read())
        async with asyncio.timeout(5):
            while not self.is_open:
                assert not self._task.done(), self._task.exception()
                await asyncio.sleep(0.01)
        return self

    async def _read(self) -> None:
        headers = self._client._headers("", {}) | {"Accept": "text/event-stream"}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
            async with http.get(self._client.url, headers=headers) as response:
                assert response.status == 200, await response.text()
                self.is_open = True
                async for line in response.content:
                    if line.startswith(b"data:") and line[5:].strip():
                        self.methods.append(json.loads(line[5:])["method"])
        self.is_open = False

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _last_message(text: str) -> dict[str, Any]:
    data = [line[5:] for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]
    message: dict[str, Any] = json.loads(data[-1])
    return message
