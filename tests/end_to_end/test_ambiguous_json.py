"""What could be read in two ways, or by nobody, is refused wherever a client can say it: it reaches no server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from tests.doubles.patience import on_loop
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

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


_ODD = [
    *(
        "1e400",
        "-1e400",
        "1" + "0" * 5000,
        "1E-400",
        r'"\ud800"',
        r'{"\udc00":1}',
        "[" * 300 + "]" * 300,
        '{"a":' * 300 + "1" + "}" * 300,
    ),
    "[" * 5000 + "]" * 5000,
]
_WHERE = {
    "argument": '"method":"tools/call","params":{"name":"echo","arguments":{"message":@},"_meta":%',
    "name": '"method":"tools/call","params":{"name":@,"arguments":{},"_meta":%',
    "meta": '"method":"tools/list","params":{"x":1,"_meta":@',
    "uri": '"method":"resources/read","params":{"uri":@,"_meta":%',
    "delay": '"method":"tools/call","params":{"name":"slow","arguments":{"seconds":@,"steps":@},"_meta":%',
}


@pytest.mark.parametrize("ask", [_over_websocket, _over_phoenix])
@pytest.mark.parametrize("where", _WHERE)
def test_numbers_beyond_any_range_and_the_like_are_no_internal_error(where: str, ask: _Ask) -> None:
    """Over HTTP `test_wire_fuzz` puts them everywhere."""

    async def body() -> None:
        async with running_cell(cell_settings()) as cell:
            for odd in _ODD if ask is _over_websocket else _ODD[:-1]:  # what nests too deep is no frame of Phoenix's
                text = await ask(cell, _WHERE[where].replace("@", odd).replace("%", _META) + "}")
                assert "-32603" not in text, (odd[:20], text)
                assert "internal error" not in text
                assert '"result"' in text or '"error"' in text
            assert {row["restarts"] for row in (await cell.rows()).values()} == {0}

    on_loop(body)


@pytest.mark.parametrize("odd", _ODD)
def test_an_event_of_a_client_may_be_refused_and_costs_nobody_anything(odd: str) -> None:
    async def body() -> None:
        async with running_cell(cell_settings()) as cell:
            async with aiohttp.ClientSession() as http, http.ws_connect(f"{cell.url}/mcp/websocket?vsn=2.0.0") as socket:
                await socket.send_str('["1","1","mcp:events","phx_join",{}]')
                await socket.send_str('["1","2","mcp:events","event",{"event":"x","data":{"a":' + odd + "}}]")
                await socket.send_str('["1","3","mcp:events","ping",{}]')
                answers: dict[str, str] = {}
                while "3" not in answers:
                    frame = await socket.receive(timeout=5)
                    if frame.type is not aiohttp.WSMsgType.TEXT:
                        assert odd.startswith("[" * 5000), frame  # no frame of Phoenix's
                        return
                    _, ref, _, _, payload = json.loads(frame.data)
                    answers[str(ref)] = json.dumps(payload)
                assert "internal" not in answers.get("2", "")

    on_loop(body)
