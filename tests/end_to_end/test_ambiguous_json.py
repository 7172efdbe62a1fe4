"""What could be read in two ways, or by nobody, is refused wherever a client can say it: it reaches no server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.doubles.running_cell import RunningCell, cell_settings, running_cell
from tests.doubles.scripted_http import on_loop

_META = json.dumps(
    {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
)
_TWICE = {
    "method": '"method":"ping","method":"tools/call","params":{}',
    "name": '"method":"tools/call","params":{"name":"echo","n\\u0061me":"fail","arguments":{},"_meta":' + _META + "}",
    "argument": '"method":"tools/call","params":{"name":"echo","arguments":{"message":[{"a":1,"a":2}]},"_meta":' + _META + "}",
}
_JSON = {"Content-Type": "application/json"}
_Ask = Callable[[RunningCell, str], Awaitable[str]]


def _message(members: str) -> str:
    return '{"jsonrpc":"2.0","id":7,' + members + "}"


async def _over_http(cell: RunningCell, members: str) -> str:
    shown = {**_JSON, "Accept": "application/json, text/event-stream"}
    shown |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{cell.url}/mcp", data=_message(members), headers=shown) as answered:
            assert answered.status == 400
            return await answered.text()


async def _over_websocket(cell: RunningCell, members: str) -> str:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{cell.url}/mcp/ws", protocols=("mcp",)) as socket:
        await socket.send_str(_message(members))
        return await socket.receive_str(timeout=5)


async def _over_sse(cell: RunningCell, members: str) -> str:
    async with aiohttp.ClientSession() as http, http.get(f"{cell.url}/mcp/sse/connect") as stream:
        endpoint = ""
        while not endpoint.startswith("data:"):
            endpoint = (await stream.content.readline()).decode()
        url = cell.url + "/mcp/sse/" + endpoint[5:].strip().removeprefix("/mcp/sse/")
        async with http.post(url, data=_message(members), headers=_JSON) as answered:
            assert answered.status == 400, url
            return await answered.text()


async def _over_phoenix(cell: RunningCell, members: str) -> str:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{cell.url}/mcp/websocket?vsn=2.0.0") as socket:
        await socket.send_str('["1","1","mcp:events","phx_join",{}]')
        await socket.receive_str(timeout=5)
        await socket.send_str('["1","2","mcp:events","request",{"id":7,' + members + "}]")
        while True:
            text = await socket.receive_str(timeout=5)
            if json.loads(text)[1] == "2":
                return text


@pytest.mark.parametrize("ask", [_over_http, _over_websocket, _over_sse, _over_phoenix])
def test_two_members_of_one_name_are_refused(ask: _Ask) -> None:
    """Also where one of them is spelled with escapes, and however deep they are."""

    async def body() -> None:
        async with running_cell(cell_settings()) as cell:
            for members in _TWICE.values():
                text = await ask(cell, members)
                assert "two members of one name" in text, text
                assert '"reason":"invalid_request"' in text
                assert '"id":7' in text

    on_loop(body)
