"""The gateway inside a Tornado application: the application's server takes the connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from mcp import Client
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from mcp_gateway import Gateway, GatewayError
from tests.doubles.ports import free_port
from tests.end_to_end.raw_http import modern, tool_call

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What tests that are coroutines run on."""
    return "asyncio"


class Home(RequestHandler):
    """What else the application serves."""

    def get(self) -> None:
        self.write("home")


@asynccontextmanager
async def application(gateway: Gateway) -> AsyncIterator[str]:
    """The address of an application of one page and a gateway."""
    port = free_port()
    server = HTTPServer(Application([*gateway.mount(), (r"/", Home)]))
    server.listen(port, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()
        await server.close_all_connections()


async def test_both_eras_of_clients_are_served_beside_the_applications_own_pages() -> None:
    gateway = Gateway({"a": {"builtin": "demo"}})
    async with application(gateway) as url, gateway:
        assert (await AsyncHTTPClient().fetch(f"{url}/")).body == b"home"
        for mode in ("auto", "legacy"):
            async with Client(f"{url}/mcp", mode=mode) as client:
                assert [tool.name for tool in (await client.list_tools()).tools] == ["a__echo", "a__time", "a__slow", "a__fail"]
                answer = await client.call_tool("a__echo", {"message": "mounted"})
                assert answer.content[0].text == "mounted"  # type: ignore[union-attr]
        seen: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        async with Client(f"{url}/mcp") as client:  # an answer that is a stream
            await client.call_tool("a__slow", {"seconds": 0.2, "steps": 4}, progress_callback=note)
        assert len(seen) >= 3
        with pytest.raises(GatewayError, match="is mounted"):
            _ = gateway.url


async def test_a_websocket_is_upgraded_through_the_applications_server() -> None:
    gateway = Gateway()
    async with application(gateway) as url, gateway:
        async with websockets.connect(f"{url.replace('http', 'ws')}/mcp/ws", subprotocols=["mcp"]) as socket:  # type: ignore[list-item]
            request, _ = modern(tool_call("echo", {"message": "hi"}, request_id=7))
            await socket.send(json.dumps(request))
            assert json.loads(await asyncio.wait_for(socket.recv(), 10))["id"] == 7


async def test_the_gateways_own_checks_hold() -> None:
    gateway = Gateway(gateway={"max_message_bytes": 2_000})
    async with application(gateway) as url, gateway:
        for headers, body, status in (
            ({"Origin": "https://evil.example"}, "{}", 403),
            ({}, "x" * 3_000, 413),
            ({}, "no json", 400),
        ):
            answer = await AsyncHTTPClient().fetch(
                f"{url}/mcp",
                method="POST",
                body=body,
                headers={"Content-Type": "application/json", **headers},
                raise_error=False,
            )
            assert answer.code == status, answer.body


async def test_a_client_that_leaves_ends_its_call_and_frees_its_connection() -> None:
    gateway = Gateway()
    async with application(gateway) as url, gateway:
        call, _ = modern(tool_call("slow", {"seconds": 60}, request_id=1))
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(call)
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\n"
            f"Mcp-Method: tools/call\r\nMcp-Name: slow\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write((head + body).encode())
        await connections(gateway, 1)
        writer.close()
        await connections(gateway, 0)


async def connections(gateway: Gateway, count: int) -> None:
    async with asyncio.timeout(10):
        while (await gateway.status())["connections"].get("streamable_http") != count:
            await asyncio.sleep(0.02)


async def test_before_the_start_and_after_the_end_clients_are_told_to_come_back() -> None:
    gateway = Gateway()
    async with application(gateway) as url:
        for _ in range(2):
            answer: Any = await AsyncHTTPClient().fetch(f"{url}/mcp", method="POST", body="{}", raise_error=False)
            assert (answer.code, json.loads(answer.body)["error"]["data"]["reason"]) == (503, "draining")
            assert answer.headers["Retry-After"] == "1"
            async with gateway:
                with pytest.raises(GatewayError, match="before it starts"):
                    gateway.mount()
