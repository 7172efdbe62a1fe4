"""A server speaks for its own exchanges alone: what it says of others' reaches nobody, whatever ids and tokens it guesses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from aiohttp import web

from mcp_gateway.transports.protocol.sealed.question_ids import read_question_id
from mcp_gateway.transports.telemetry import metrics
from tests.doubles.forging_server import FORGED, forging_application
from tests.doubles.patience import on_loop
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell

_FORGER = str(Path(__file__).parents[1] / "doubles" / "forging_server.py")
_PENDING, _HOSTILE = 5, 6
TRANSPORTS = ("http", "ws", "sse", "stdio")


@attrs.define
class Scene:
    """A cell between a client and two servers. released: the honest one answers its calls. said: see `forging_application`."""

    cell: RunningCell
    released: asyncio.Event
    said: asyncio.Semaphore


@asynccontextmanager
async def scene(transport: str) -> AsyncIterator[Scene]:
    released, said = asyncio.Event(), asyncio.Semaphore(0)

    async def honest(request: web.Request) -> web.Response:
        message = await request.json() if request.method == "POST" else {}
        if "id" not in message:
            return web.Response(status=405 if request.method == "GET" else 202)
        if message["method"] == "tools/call":
            await released.wait()
            return _json(message, {"content": [{"type": "text", "text": "true"}]})
        info = {"name": "honest", "version": "1"}
        if message["method"] == "initialize":
            return _json(message, {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info})
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "?"}})

    application = forging_application(said)
    application.router.add_route("*", "/honest", honest)
    runner = web.AppRunner(application, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    where: dict[str, Any] = {"command": [sys.executable, _FORGER]}
    if transport != "stdio":
        scheme = {"ws": "ws", "sse": "sse+http"}.get(transport, "http")
        where = {"replicas": [f"{scheme}://{address}/{transport}"]}
    backends = [{"name": "honest", "replicas": [f"http://{address}/honest"]}, {"name": "hostile", **where}]
    try:
        async with running_cell(cell_settings(backends)) as cell:
            yield Scene(cell, released, said)
    finally:
        await runner.cleanup()


def _json(request: dict[str, Any], result: dict[str, Any]) -> web.Response:
    return web.json_response({"jsonrpc": "2.0", "id": request["id"], "result": result})


def _call(request_id: int, tool: str) -> dict[str, Any]:
    params = {"name": tool, "arguments": {}, "_meta": {"progressToken": request_id}}
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def _initialize() -> dict[str, Any]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def _assert_speaks_for_itself(cell: RunningCell, heard: list[dict[str, Any]]) -> None:
    """Of what the forger says, only progress of its own call and cancellations of its own questions may come through."""
    for message in heard:
        if FORGED not in json.dumps(message):
            continue
        params = message.get("params", {})
        if message.get("method") == "notifications/progress":
            assert params["progressToken"] == _HOSTILE
        else:
            assert message.get("method") == "notifications/cancelled"
            question = read_question_id(cell.cell._port.seal, json.dumps(params["requestId"]).encode())
            assert question is not None
            assert question.backend == "hostile"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_pending_call_to_another_server_reads_its_own_answer_on_one_socket(transport: str) -> None:
    """A socket carries everything that the client ever hears: nothing forged is on it."""

    async def body() -> None:
        async with scene(transport) as playing, aiohttp.ClientSession() as http:
            async with http.ws_connect(f"{playing.cell.url}/mcp/ws", protocols=("mcp",)) as socket:
                heard: list[dict[str, Any]] = []

                async def until_answered(request_id: int) -> dict[str, Any]:
                    while True:
                        heard.append(await socket.receive_json(timeout=10))
                        if heard[-1].get("id") == request_id and "method" not in heard[-1]:
                            return heard[-1]

                await socket.send_json(_initialize())
                assert "result" in await until_answered(1)
                await socket.send_json({"jsonrpc": "2.0", "method": "notifications/initialized"})
                await socket.send_json(_call(_PENDING, "honest__wait"))
                await socket.send_json(_call(_HOSTILE, "hostile__forge"))
                assert (await until_answered(_HOSTILE))["result"]["content"][0]["text"] == "own"
                if transport == "http":
                    await asyncio.wait_for(playing.said.acquire(), 10)
                playing.released.set()
                assert (await until_answered(_PENDING))["result"]["content"][0]["text"] == "true"
                _assert_speaks_for_itself(playing.cell, heard)

    on_loop(body)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_answer_and_no_stream_over_http_carries_what_is_forged(transport: str) -> None:
    """Two sessions: the calls of one and its stream, and the stream of the other, who does nothing."""

    async def body() -> None:
        async with scene(transport) as playing, aiohttp.ClientSession() as http:
            url = f"{playing.cell.url}/mcp"
            sessions = [await _opened(http, url) for _ in range(2)]
            pending = asyncio.create_task(_asked(http, url, _call(_PENDING, "honest__wait"), sessions[1]))
            streams = [asyncio.create_task(_stream(http, url, session)) for session in sessions]
            for _ in streams if transport == "http" else ():  # before its own call, whose progress may come on a stream, too
                await asyncio.wait_for(playing.said.acquire(), 10)
            own = await _asked(http, url, _call(_HOSTILE, "hostile__forge"), sessions[1])
            assert own[-1]["result"]["content"][0]["text"] == "own"
            playing.released.set()
            answered = await pending
            assert answered[-1]["result"]["content"][0]["text"] == "true"
            for stream in streams:
                stream.cancel()
            heard = [each for stream in await asyncio.gather(*streams) for each in stream]
            _assert_speaks_for_itself(playing.cell, [*own, *answered])
            assert [each for each in heard if each.get("method") not in (None, "notifications/cancelled")] == []
            _assert_speaks_for_itself(playing.cell, heard)

    on_loop(body)


def test_an_answer_made_of_others_ids_fails_its_own_call_alone() -> None:
    async def body() -> None:
        async with scene("foreign") as playing, aiohttp.ClientSession() as http:
            url = f"{playing.cell.url}/mcp"
            session = await _opened(http, url)
            pending = asyncio.create_task(_asked(http, url, _call(_PENDING, "honest__wait"), session))
            before = _dropped("hostile", "response")
            (own,) = await _asked(http, url, _call(_HOSTILE, "hostile__forge"), session)
            assert own["error"]["data"]["reason"] == "upstream_failed"
            assert _dropped("hostile", "response") > before
            playing.released.set()
            assert (await pending)[-1]["result"]["content"][0]["text"] == "true"

    on_loop(body)


def _dropped(backend: str, kind: str) -> float:
    return float(metrics.upstream_messages_dropped_total.labels(backend, kind)._value.get())


_SHOWN = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


async def _opened(http: aiohttp.ClientSession, url: str) -> dict[str, str]:
    async with http.post(url, json=_initialize(), headers=_SHOWN) as opened:
        assert opened.status == 200
        session = {**_SHOWN, "Mcp-Session-Id": opened.headers["Mcp-Session-Id"]}
    told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    async with http.post(url, json=told, headers=session) as accepted:
        assert accepted.status == 202
    return session


async def _asked(http: aiohttp.ClientSession, url: str, message: dict[str, Any], session: dict[str, str]) -> list[dict[str, Any]]:
    async with http.post(url, json=message, headers=session) as answered:
        return _messages(await answered.text())


async def _stream(http: aiohttp.ClientSession, url: str, session: dict[str, str]) -> list[dict[str, Any]]:
    """What a session's stream has carried until it was cancelled."""
    heard = ""
    async with http.get(url, headers={**session, "Accept": "text/event-stream"}) as stream:
        with contextlib.suppress(asyncio.CancelledError):
            async for part in stream.content.iter_any():
                heard += part.decode()
    return _messages(heard)


def _messages(text: str) -> list[dict[str, Any]]:
    if text.startswith("{"):
        return [json.loads(text)]
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
