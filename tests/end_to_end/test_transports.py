"""Whatever transport a client comes by, it is served the same: one suite for all, with the official SDK's client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPError

from tests.conftest import StartGateway
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.python_client import MODES, all_pages, connected, run, text_of
from tests.end_to_end.running_gateway import Form, RunningGateway
from tests.end_to_end.websocket_transport import websocket_transport

GATEWAY_FORMS: tuple[Form, ...] = ("embedded", "two cells")
TRANSPORTS = ("streamable_http", "http_sse", "websocket")


class Setting:
    """A gateway before one server, and how a client connects to it."""

    def __init__(self, gateway: RunningGateway, server: SdkServer, transport: str, mode: str) -> None:
        self.gateway = gateway
        self.server = server
        self.transport = transport
        self.mode = mode
        self.tag = f"{gateway.form} {transport} {mode}"

    def connected(self, **options: Any) -> Any:
        url = self.gateway.url
        targets = {
            "streamable_http": lambda: f"{url}/mcp",
            "http_sse": lambda: sse_client(f"{url}/mcp/sse/connect"),
            "websocket": lambda: websocket_transport(f"{url.replace('http', 'ws')}/mcp/ws"),
        }
        return connected(targets[self.transport](), self.mode, **options)


@pytest.fixture(scope="module", params=[(form, mode) for form in GATEWAY_FORMS for mode in MODES], ids=" ".join)
def served(
    request: pytest.FixtureRequest, start_gateway: StartGateway, legacy_server: SdkServer, modern_server: SdkServer
) -> Iterator[tuple[RunningGateway, SdkServer, str]]:
    form, mode = request.param
    server = legacy_server if mode == "legacy" else modern_server
    with start_gateway(form, [{"name": "all", "prefix": "", "replicas": [server.url]}]) as gateway:
        yield gateway, server, mode
        assert gateway.restart_count() == 0


@pytest.fixture(params=TRANSPORTS)
def setting(request: pytest.FixtureRequest, served: tuple[RunningGateway, SdkServer, str]) -> Setting:
    gateway, server, mode = served
    return Setting(gateway, server, request.param, mode)


def test_it_lists_and_calls_and_reads_errors(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, _):
            names = [name for page in await all_pages(client.list_tools, "tools", "name") for name in page]
            assert {"echo", "add", "slow"} <= set(names)
            assert text_of(await client.call_tool("echo", {"message": "grüße \U0001f310"})) == "grüße \U0001f310"
            assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
            assert (await client.call_tool("fail", {"message": "on purpose"})).is_error
            assert len(text_of(await client.call_tool("big", {"size_bytes": 500_000}))) == 500_000
            with pytest.raises(MCPError):
                await client.read_resource("test://nothing")
            many = await asyncio.gather(*(client.call_tool("echo", {"message": str(number)}) for number in range(50)))
            assert [text_of(result) for result in many] == [str(number) for number in range(50)]

    run(converse())


def test_progress_arrives_in_order(setting: Setting) -> None:
    reports: list[float] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append(progress)

    async def converse() -> None:
        async with setting.connected() as (client, _):
            await client.call_tool("progress", {"steps": 5, "delay_s": 0.01}, progress_callback=report)

    run(converse())
    assert reports == [1, 2, 3, 4, 5]


def test_log_messages_arrive(setting: Setting) -> None:
    async def converse() -> None:
        options = {} if setting.mode == "legacy" else {"log_level": "info"}
        async with setting.connected(**options) as (client, record):
            await client.call_tool("log", {"message": "seen", "level": "info", "count": 3})
            await record.wait_for(lambda record: len(record.logs) >= 3)
            assert record.logs == [{"message": "seen", "number": number} for number in range(3)]

    run(converse())


def test_the_server_asks_the_client(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected(name="Grace") as (client, record):
            assert text_of(await client.call_tool("elicit", {})) == "accept: Hello, Grace!"
            assert text_of(await client.call_tool("sample", {"prompt": "tea"})) == "model of Grace: about tea"
            assert text_of(await client.call_tool("roots", {})) == "file:///Grace"
            assert record.questions == ["elicitation", "sampling: tea", "roots"]

    run(converse())


def test_a_cancelled_call_is_cancelled_on_the_server(setting: Setting) -> None:
    async def converse() -> None:
        async with setting.connected() as (client, _):
            call = asyncio.ensure_future(client.call_tool("slow", {"seconds": 30, "tag": setting.tag}))
            await counted(setting, "started")
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await counted(setting, "cancelled")
            assert text_of(await client.call_tool("echo", {"message": "still here"})) == "still here"

    run(converse())
    assert setting.tag not in setting.server.counters()["finished"]


def test_a_client_that_leaves_takes_its_call_with_it(setting: Setting) -> None:
    setting.tag += " left"

    async def converse() -> None:
        async with setting.connected() as (client, _):
            call = asyncio.ensure_future(client.call_tool("slow", {"seconds": 30, "tag": setting.tag}))
            await counted(setting, "started")
        await asyncio.gather(call, return_exceptions=True)
        await counted(setting, "cancelled")

    run(converse())


async def counted(setting: Setting, member: str) -> None:
    await asyncio.to_thread(setting.server.wait_for, lambda counters: setting.tag in counters[member])
