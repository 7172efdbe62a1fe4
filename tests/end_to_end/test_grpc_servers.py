"""gRPC servers, with reflection and of MCP's own proto, through a whole gateway and the official clients of both eras."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference

from tests.conftest import StartGateway
from tests.doubles.grpc_mcp_server import TOOLS, GrpcMcpServer, grpc_mcp_server
from tests.doubles.grpc_shop import GrpcShop, grpc_shop
from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import FORMS, RunningGateway
from tests.node.node_client import run_node_client


@pytest.fixture(scope="module")
def shop() -> Iterator[GrpcShop]:
    with grpc_shop() as running:
        yield running


@pytest.fixture(scope="module")
def mcp_server() -> Iterator[GrpcMcpServer]:
    with grpc_mcp_server() as running:
        yield running


@pytest.fixture(scope="module", params=FORMS)
def gateway(
    request: pytest.FixtureRequest, start_gateway: StartGateway, shop: GrpcShop, mcp_server: GrpcMcpServer
) -> Iterator[RunningGateway]:
    backends = [{"name": "shop", "grpc": shop.address}, {"name": "own", "replicas": [f"grpc://{mcp_server.address}"]}]
    with start_gateway(request.param, backends) as running:
        yield running


@pytest.mark.parametrize("mode", MODES)
def test_methods_are_tools_and_streams_are_progress(mode: str, gateway: RunningGateway) -> None:
    async def conversation() -> None:
        seen: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        async with connected(gateway.endpoint("shop"), mode) as (client, _):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["Catalog_Find", "Catalog_Watch"]
            found = await client.call_tool("Catalog_Find", {"namePart": "a", "limit": 2})
            assert found.structured_content == {"name": "a/", "count": 2}
            missing = await client.call_tool("Catalog_Find", {"namePart": "missing"})
            assert (missing.is_error, text_of(missing)) == (True, "gRPC NOT_FOUND: no such item")
            watched = await client.call_tool("Catalog_Watch", {"namePart": "w", "limit": 3}, progress_callback=note)
            assert len(watched.structured_content["messages"]) == 3
            assert seen == [1, 2, 3]

    run(conversation())


@pytest.mark.node_js
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_the_typescript_client_lists_them(mode: Any, gateway: RunningGateway) -> None:
    assert "Catalog_Find" in str(run_node_client(gateway.endpoint("shop"), mode)["tools"])


@pytest.mark.parametrize("mode", MODES)
def test_a_server_of_the_proto_is_an_mcp_server_like_any_other(mode: str, gateway: RunningGateway) -> None:
    async def conversation() -> None:
        async with connected(gateway.endpoint("own"), mode) as (client, record):
            assert [tool.name for tool in (await client.list_tools()).tools] == list(TOOLS)
            assert text_of(await client.call_tool("echo", {"text": "é"})) == "é"
            assert (await client.read_resource("note://one")).contents[0].blob == "AP8="
            assert (await client.get_prompt("greet", {"who": "Ada"})).messages[0].content.text == "Greet Ada."
            found = await client.complete(PromptReference(name="greet"), {"name": "who", "value": "x"})
            assert found.completion.values == ["xa", "xb"]
            assert text_of(await client.call_tool("ask", {})) == "kept: Ada"
            assert record.questions == ["elicitation"]
            with pytest.raises(MCPError, match="no such thing"):
                await client.call_tool("fail", {})

    run(conversation())
