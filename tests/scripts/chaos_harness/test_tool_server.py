"""The server of the harness writes down a run before it answers, and fails in every way that it is told to."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mcp_gateway.scripts.chaos_harness.tool_server import Mode, ToolServer, mode_path, runs_path, serve_http
from tests.doubles.ports import free_port


def request(method: str, **params: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


async def post(http: aiohttp.ClientSession, url: str, body: dict[str, object], session: str = "") -> tuple[int, str, str]:
    async with http.post(url, json=body, headers={"Mcp-Session-Id": session} if session else {}) as response:
        return response.status, await response.text(), response.headers.get("Mcp-Session-Id", "")


def with_server(folder: Path, talk: Any) -> Any:
    """What `talk(http, url, session)` returns, with a server in this loop and a session of it."""

    async def run() -> Any:
        port = free_port()
        server = asyncio.create_task(serve_http(ToolServer("one", folder), "127.0.0.1", port))
        url = f"http://127.0.0.1:{port}/mcp"
        async with asyncio.timeout(10), aiohttp.ClientSession() as http:
            while True:
                try:
                    _, _, session = await post(http, url, request("initialize"))
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.01)
            try:
                return await talk(http, url, session)
            finally:
                server.cancel()

    return asyncio.run(run())


def runs(folder: Path) -> list[str]:
    return [json.loads(line)["argument"] for line in runs_path(folder).read_text().splitlines()]


CALL = request("tools/call", name="write", arguments={"argument": "a"})


def test_it_counts_runs_and_knows_its_sessions(tmp_path: Path) -> None:
    async def talk(http: aiohttp.ClientSession, url: str, session: str) -> None:
        assert (await post(http, url, CALL, session))[0] == 200
        assert (await post(http, url, request("tools/call", name="read", arguments={"argument": "b"}), session))[0] == 200
        assert (await post(http, url, CALL, "another"))[0] == 404
        assert (await post(http, url, CALL))[0] == 400

    with_server(tmp_path, talk)
    assert runs(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", [Mode.NOTHING, Mode.RESET])
def test_it_runs_and_then_breaks_the_connection(mode: Mode, tmp_path: Path) -> None:
    async def talk(http: aiohttp.ClientSession, url: str, session: str) -> None:
        mode_path(tmp_path, "one").write_text(mode.value)
        with pytest.raises(aiohttp.ClientError):
            await post(http, url, CALL, session)

    with_server(tmp_path, talk)
    assert runs(tmp_path) == ["a"]


@pytest.mark.parametrize(("mode", "status"), [(Mode.GARBAGE, 200), (Mode.ERROR, 500)])
def test_it_runs_and_answers_what_is_no_answer(mode: Mode, status: int, tmp_path: Path) -> None:
    async def talk(http: aiohttp.ClientSession, url: str, session: str) -> tuple[int, str, str]:
        mode_path(tmp_path, "one").write_text(mode.value)
        return await post(http, url, CALL, session)

    found_status, text, _ = with_server(tmp_path, talk)
    assert found_status == status
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert runs(tmp_path) == ["a"]


def test_it_asks_on_the_stream_of_the_call_and_goes_on_when_it_is_answered(tmp_path: Path) -> None:
    async def talk(http: aiohttp.ClientSession, url: str, session: str) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        body = request("tools/call", name="ask", arguments={"argument": "a"})
        async with http.post(url, json=body, headers={"Mcp-Session-Id": session}) as response:
            async for line in response.content:
                if line.startswith(b"data: "):
                    said.append(json.loads(line[6:]))
                    if "method" in said[-1]:
                        answer = {"jsonrpc": "2.0", "id": said[-1]["id"], "result": {"action": "accept", "content": {}}}
                        assert (await post(http, url, answer, session))[0] == 202
        return said

    question, response = with_server(tmp_path, talk)
    assert question["method"] == "elicitation/create"
    assert response["result"]["content"][0]["text"] == "a"


def test_what_a_fault_takes_from_the_gateway_that_starts_it_it_takes_back(tmp_path: Path) -> None:
    """Else it could not write down what it runs for as long as it lives."""
    server = [sys.executable, "-m", "mcp_gateway.scripts.chaos_harness.tool_server", "--name", "one", "--folder", str(tmp_path)]
    done = subprocess.run(
        ["prlimit", "--fsize=1:", *server], input=json.dumps(CALL) + "\n", capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout)["id"] == 1, done.stderr
    assert runs(tmp_path) == ["a"]
