"""The doubles do what their names promise; a fault test is worth no more than the fault it is built on."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.doubles.scripted_upstreams import EchoUpstream, FlappingUpstream, Garbage, GarbageUpstream, SilentUpstream
from tests.doubles.sdk_server import SdkServer, start_sdk_server

CALLS: dict[str, dict[str, Any]] = {
    "echo": {"message": "hi"},
    "add": {"a": 1, "b": 2},
    "elicit": {},
    "sample": {"prompt": "?"},
    "roots": {},
}


def post(port: int, method: str = "tools/call", *, timeout_s: float = 2.0) -> tuple[int, str, bytes]:
    """(status, content type, body) of one legacy request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        params = {"protocolVersion": "2025-11-25", "name": "echo", "arguments": {"message": "hi"}}
        connection.request("POST", "/mcp", json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
        answer = connection.getresponse()
        return answer.status, answer.headers.get("content-type", ""), answer.read()
    finally:
        connection.close()


async def use_everything(url: str, mode: str) -> dict[str, Any]:
    """Let the official client use each feature once; returns what it saw."""

    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    async def sample(context: Any, params: Any) -> types.CreateMessageResult:
        return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="42"), model="test-model")

    async def roots(context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///root")])

    reports: list[float] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append(progress)

    callbacks = {"elicitation_callback": elicit, "sampling_callback": sample, "list_roots_callback": roots}
    async with Client(url, mode=mode, **callbacks) as client:
        seen: dict[str, Any] = {"version": client.protocol_version}
        for name, arguments in CALLS.items():
            called = await client.call_tool(name, arguments)
            seen[name] = called.content[0].text
        await client.call_tool("progress", {"steps": 3}, progress_callback=report)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call_tool("slow", {"seconds": 30, "tag": mode}), 1.0)
        seen |= {"progress": reports, "resource": (await client.read_resource("test://item/7")).contents[0].text}
        seen["prompt"] = (await client.get_prompt("greet", {"name": "Bo"})).messages[0].content.text
        return seen


@pytest.mark.parametrize(
    ("mode", "era"), [("legacy", "legacy"), ("2026-07-28", "modern"), ("legacy", "both"), ("2026-07-28", "both")]
)
def test_the_sdk_server_serves_its_eras_to_the_official_client(mode: str, era: Any) -> None:
    with start_sdk_server(era=era) as server:
        seen = asyncio.run(use_everything(server.url, mode))
        assert seen == {
            "version": "2025-11-25" if mode == "legacy" else mode,
            "echo": "hi",
            "add": "3",
            "elicit": "accept: Hello, Ada!",
            "sample": "test-model: 42",
            "roots": "file:///root",
            "progress": [1, 2, 3],
            "resource": '{"item": "7", "checksum": "37"}',
            "prompt": "Say hello to Bo.",
        }
        counters = server.wait_for(lambda counters: mode in counters["cancelled"])
        assert counters["calls"]["elicit"] == 1


@pytest.mark.parametrize(("mode", "era"), [("legacy", "modern"), ("2026-07-28", "legacy")])
def test_a_server_of_one_era_refuses_the_other(mode: str, era: Any) -> None:
    async def call() -> None:
        async with Client(server.url, mode=mode) as client:
            await client.list_tools()

    with start_sdk_server(era=era) as server, pytest.raises(Exception):  # noqa: B017, PT011 - any error but success
        asyncio.run(asyncio.wait_for(call(), 10))


@pytest.mark.parametrize("options", [{"stateless": True}, {"json_response": True}])
def test_the_sdk_servers_other_manners_of_answering_work(options: dict[str, bool]) -> None:
    async def call() -> types.CallToolResult:
        async with Client(server.url, mode="legacy") as client:
            return await client.call_tool("echo", {"message": "hi"})

    with start_sdk_server(**options) as server:  # type: ignore[arg-type]
        assert asyncio.run(call()).content[0].text == "hi"


async def echoed(server: Any) -> str:
    async with Client(server, mode="legacy") as client:
        called = await client.call_tool("echo", {"message": "hi"})
        text: str = called.content[0].text
        return text


def test_the_everything_server_speaks_http_with_sse_too() -> None:
    with start_sdk_server(transport="sse") as server:
        assert asyncio.run(echoed(sse_client(server.url.removeprefix("sse+")))) == "hi"


def test_the_everything_server_speaks_stdio_too() -> None:
    program = str(Path(__file__).with_name("everything_server.py"))
    parameters = StdioServerParameters(command=sys.executable, args=[program, "--transport", "stdio"])
    assert asyncio.run(echoed(stdio_client(parameters))) == "hi"


def test_pages_of_the_tool_list_add_up() -> None:
    async def names() -> list[list[str]]:
        pages, cursor = [], None
        async with Client(server.url, mode="legacy") as client:
            while not pages or cursor:
                page = await client.list_tools(cursor=cursor)
                pages.append([tool.name for tool in page.tools])
                cursor = page.next_cursor
        return pages

    with start_sdk_server(page_size=10, extra_tools=25) as server:
        pages = asyncio.run(names())
    assert [len(page) for page in pages[:-1]] == [10] * (len(pages) - 1)
    assert len({name for page in pages for name in page}) == sum(map(len, pages)) == 41


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_server_comes_back_on_its_port_and_nothing_is_left_at_the_end() -> None:
    with start_sdk_server() as server:
        url, pid = server.url, server.pid
        server.kill()
        assert not is_alive(pid)
        server.restart()
        assert (server.url, server.counters()["pid"]) == (url, server.pid)
        pid = server.pid
    assert not is_alive(pid)


def test_a_server_ends_by_itself_when_its_starter_is_gone() -> None:
    with start_sdk_server() as server:
        assert isinstance(server, SdkServer)
        assert server._process is not None
        assert server._process.stdin is not None
        server._process.stdin.close()
        assert server._process.wait(5) == 0


def test_the_silent_upstream_accepts_and_never_answers() -> None:
    with SilentUpstream() as upstream:
        with pytest.raises(TimeoutError):
            post(upstream.port, timeout_s=0.2)
        upstream.wait_for(lambda: bool(upstream.requests))
        assert (upstream.connections, len(upstream.requests)) == (1, 1)


def test_the_flapping_upstream_resets_while_it_is_down() -> None:
    with FlappingUpstream() as upstream:
        assert post(upstream.port)[0] == 200
        upstream.is_down = True
        with pytest.raises(ConnectionResetError):
            post(upstream.port)
        upstream.is_down = False
        assert post(upstream.port)[0] == 200


def test_the_flapping_upstream_can_flap_by_itself() -> None:
    def works() -> bool:
        try:
            return post(upstream.port)[0] == 200
        except ConnectionResetError:
            return False

    with FlappingUpstream(flaps=(2, 1)) as upstream:
        assert [works() for _ in range(6)] == [True, True, False, True, True, False]


def test_the_echo_upstream_is_correct() -> None:
    with EchoUpstream() as upstream:
        status, content_type, body = post(upstream.port)
        assert (status, content_type) == (200, "application/json")
        assert json.loads(body)["result"]["content"][0]["text"] == '{"message": "hi"}'


@pytest.mark.parametrize("garbage", Garbage)
def test_garbage_is_what_it_says_after_a_sound_opening(garbage: Garbage) -> None:
    with GarbageUpstream(garbage, huge_bytes=5_000_000) as upstream:
        assert "protocolVersion" in json.loads(post(upstream.port, "initialize")[2])["result"]
        match garbage:
            case Garbage.NOT_HTTP | Garbage.ENDLESS_HEADERS | Garbage.TRUNCATED_JSON:
                with pytest.raises(http.client.HTTPException):
                    post(upstream.port)
                return
        status, content_type, body = post(upstream.port)
    assert status == (500 if garbage is Garbage.HTML_500 else 200)
    match garbage:
        case Garbage.WRONG_ID:
            assert json.loads(body)["id"] == "not-yours"
        case Garbage.NO_RESPONSE:
            assert "jsonrpc" not in json.loads(body)
        case Garbage.WRONG_CONTENT_TYPE:
            assert content_type == "text/plain"
        case Garbage.HUGE_BODY:
            assert len(body) > 5_000_000
        case Garbage.SSE_WITHOUT_ANSWER:
            assert content_type == "text/event-stream"
            assert b"result" not in body
        case _:
            with pytest.raises(json.JSONDecodeError):
                json.loads(body)


def test_a_scripted_upstream_frees_its_port_while_clients_hang_on() -> None:
    with SilentUpstream() as upstream:
        client = socket.create_connection(("127.0.0.1", upstream.port))
        client.sendall(b"POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        upstream.wait_for(lambda: bool(upstream.requests))
        started = time.monotonic()
    assert time.monotonic() - started < 4  # it waits 5 s for its threads
    assert client.recv(1) == b""
    client.close()
