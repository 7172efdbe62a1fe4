"""Clients of MCP's own gRPC proto, by its stubs, through a whole gateway: what the `matrix` does not look at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import grpc
import pytest
from mcp.shared.exceptions import MCPError

from tests.conftest import StartGateway
from tests.doubles.grpc_mcp_server import TOOLS, grpc_mcp_server
from tests.doubles.ports import free_port
from tests.doubles.sdk_server import start_sdk_server
from tests.end_to_end.grpc_client import GrpcClient, connected_by_grpc
from tests.end_to_end.python_client import run, text_of

_Value = TypeVar("_Value")
Use = Callable[[GrpcClient], Awaitable[_Value]]


@pytest.fixture(scope="module", params=["embedded", "two cells"])
def address(request: pytest.FixtureRequest, start_gateway: StartGateway) -> Iterator[str]:
    port = free_port()
    with start_sdk_server(era="legacy", page_size=5) as legacy, grpc_mcp_server() as own:
        backends = [{"name": "legacy", "replicas": [legacy.url]}, {"name": "own", "replicas": [f"grpc://{own.address}"]}]
        with start_gateway(request.param, backends, grpc={"port": port}):
            yield f"127.0.0.1:{port}"


def used(address: str, server: str, use: Use[_Value]) -> _Value:
    async def scene() -> _Value:
        async with connected_by_grpc(address, server) as (client, _):
            return await use(client)

    return run(scene(), 60)


def test_all_pages_of_a_server_are_one_list(address: str) -> None:
    async def use(client: GrpcClient) -> None:
        assert len((await client.list_tools()).tools) > 10

    used(address, "legacy", use)


@pytest.mark.parametrize(("server", "argument"), [("legacy", "message"), ("own", "text")])
def test_text_crosses_as_it_is(server: str, argument: str, address: str) -> None:
    async def use(client: GrpcClient) -> None:
        assert text_of(await client.call_tool("echo", {argument: "é"})) == "é"

    used(address, server, use)


def test_a_server_of_the_proto_is_reached_by_a_client_of_it(address: str) -> None:
    async def use(client: GrpcClient) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
        assert text_of(await client.call_tool("ask", {})) == "kept: Ada"
        assert (await client.read_resource("note://one")).contents[0].blob == b"\x00\xff"
        with pytest.raises(MCPError) as raised:
            await client.call_tool("fail", {})
        cause = raised.value.__cause__
        assert isinstance(cause, grpc.aio.AioRpcError)
        assert (cause.code(), cause.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no such thing")

    used(address, "own", use)
