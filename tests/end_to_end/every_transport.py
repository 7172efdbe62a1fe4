"""One request over each transport, on a connection of its own: what all of them must answer alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urljoin

import aiohttp
from websockets.asyncio.client import connect

from tests.doubles.phoenix_client import phoenix_client
from tests.end_to_end.raw_http import MODERN, ask


def bearer(key: str) -> dict[str, str]:
    """The header of a client that shows this key or token; none for ""."""
    return {"Authorization": f"Bearer {key}"} if key else {}


async def over_streamable_http(url: str, message: dict[str, Any], query: str = "", key: str = "") -> Any:
    """A stateless request with the headers that repeat it; a handshake without."""
    is_stateless = "_meta" in message["params"]
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": message["method"]} if is_stateless else {}
    if is_stateless and (item := message["params"].get("name") or message["params"].get("uri")):
        headers["Mcp-Name"] = item
    headers |= bearer(key)
    return (await asyncio.to_thread(ask, f"{url}/mcp?{query}", message, headers)).message


async def over_sse(url: str, message: dict[str, Any], query: str = "", key: str = "") -> Any:
    """The answer: of the POST where that is refused, else the message that follows on the stream."""
    async with aiohttp.ClientSession(headers=bearer(key)) as http, http.get(f"{url}/mcp/sse/connect?{query}") as stream:
        async with http.post(urljoin(f"{url}/mcp/sse/connect", await sse_data(stream, "endpoint")), json=message) as posted:
            if posted.status != 202:
                return await posted.json()
        return json.loads(await sse_data(stream, "message"))


async def sse_data(stream: aiohttp.ClientResponse, name: str) -> str:
    event = ""
    async for line in stream.content:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            event = value
        elif field == "data" and event == name:
            return value
    raise AssertionError(f"the stream ended without {name}")


async def over_websocket(url: str, message: dict[str, Any], query: str = "", key: str = "") -> Any:
    async with connect(f"ws{url[4:]}/mcp/ws?{query}", max_size=None, additional_headers=bearer(key)) as connection:
        await connection.send(json.dumps(message))
        return json.loads(await connection.recv())


async def over_phoenix(url: str, message: dict[str, Any], query: str = "", key: str = "") -> Any:
    async with phoenix_client(url, f"vsn=2.0.0&{query}", bearer(key)) as client:
        channel = "mcp:client.*" if key else "mcp:events"  # which is for operators where clients are known
        await client.ask("j", channel, "phx_join", {})
        await client.push("j", channel, "request", {key: message[key] for key in ("id", "method", "params")})
        return (await client.find(event="response")).payload


# Each: (url of the gateway, message, query of the connection's address, API key or token) -> the response.
WAYS: dict[str, Callable[..., Awaitable[Any]]] = {
    "streamable HTTP": over_streamable_http,
    "HTTP+SSE": over_sse,
    "WebSocket": over_websocket,
    "Phoenix": over_phoenix,
}
