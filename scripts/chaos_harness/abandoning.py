"""Every way in which clients open something at the gateway and leave it: in order, without a word, in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from .clients import MODERN, TASKS, Json, initialize_params, modern_meta, sse_events
from .fault_kinds import ALONE, DEMO
from .served_tools import ASK, LEGACY, WORK

_ACCEPT: Final = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_INITIALIZE: Final = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": initialize_params()}
_CALL: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": f"{DEMO}__echo", "arguments": {"message": "x"}},
}


class NotOpened(Exception):
    """The gateway has refused what was to be abandoned."""


async def open_session(http: aiohttp.ClientSession, url: str) -> dict[str, str]:
    """A new session; the headers of its requests.

    Raises: NotOpened
    """
    async with http.post(f"{url}/mcp", json=_INITIALIZE, headers=_ACCEPT) as response:
        await response.read()
        if response.status != 200:
            raise NotOpened(f"initialize: {response.status}")
        return {**_ACCEPT, "MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": response.headers["Mcp-Session-Id"]}


async def _say_nothing_more(http: aiohttp.ClientSession, url: str) -> None:
    await open_session(http, url)


async def _call_and_go(http: aiohttp.ClientSession, url: str) -> None:
    headers = await open_session(http, url)
    async with http.post(f"{url}/mcp", json=_CALL, headers=headers) as response:
        await response.read()


async def _end_in_order(http: aiohttp.ClientSession, url: str) -> None:
    headers = await open_session(http, url)
    async with http.delete(f"{url}/mcp", headers=headers) as response:
        await response.read()


async def _cut_a_stream(http: aiohttp.ClientSession, url: str) -> None:
    headers = await open_session(http, url)
    async with http.get(f"{url}/mcp", headers={**headers, "Accept": "text/event-stream"}) as response:
        response.close()


async def _cut_http_sse(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(f"{url}/mcp/sse/connect") as response:
        async for _ in sse_events(response):
            break
        response.close()


async def _cut_a_websocket(_http: aiohttp.ClientSession, url: str) -> None:
    async with connect(f"ws{url[4:]}/mcp/ws", subprotocols=[Subprotocol("mcp")]) as socket:
        await socket.send(json.dumps(_INITIALIZE))
        await socket.recv()
        socket.transport.abort()


async def _leave_a_channel(_http: aiohttp.ClientSession, url: str) -> None:
    async with connect(f"ws{url[4:]}/mcp/websocket?vsn=2.0.0") as socket:
        await socket.send(json.dumps(["1", "1", "mcp:client.soak", "phx_join", {}]))
        await socket.recv()
        socket.transport.abort()


async def _ask_and_go(http: aiohttp.ClientSession, url: str, capabilities: Json, tool: str, arguments: Json) -> None:
    params = {"name": tool, "arguments": arguments, "_meta": modern_meta(capabilities)}
    headers = {**_ACCEPT, "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with http.post(f"{url}/mcp", json=body, headers=headers) as response:
        await response.read()


async def _park_a_call(http: aiohttp.ClientSession, url: str) -> None:
    await _ask_and_go(http, url, {"elicitation": {}}, f"{ALONE}__{ASK}", {"argument": ""})


async def _forget_a_task(http: aiohttp.ClientSession, url: str) -> None:
    await _ask_and_go(http, url, {"extensions": {TASKS: {}}}, f"{ALONE}__{WORK}", {"argument": "", "seconds": 1.5})


WAYS: Final[dict[str, Callable[[aiohttp.ClientSession, str], Awaitable[None]]]] = {
    "session, without a word": _say_nothing_more,
    "session, after a call": _call_and_go,
    "session, in order": _end_in_order,
    "stream of a session": _cut_a_stream,
    "HTTP+SSE": _cut_http_sse,
    "WebSocket": _cut_a_websocket,
    "Phoenix channel": _leave_a_channel,
    "parked call": _park_a_call,
    "task": _forget_a_task,
}
"""{what is left: how}. Each makes connections of its own, as a client that comes once does."""


async def abandon(name: str, url: str) -> bool:
    """Open and leave one; whether the gateway let it be opened."""
    try:
        async with asyncio.timeout(15), aiohttp.ClientSession() as http:
            with contextlib.suppress(ConnectionResetError):
                await WAYS[name](http, url)
        return True
    except (OSError, aiohttp.ClientError, NotOpened, TimeoutError):
        return False
