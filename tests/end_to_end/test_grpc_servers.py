"""A gRPC server with reflection through a whole gateway and the official clients of both eras."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartGateway
from tests.doubles.grpc_shop import GrpcShop, grpc_shop
from tests.end_to_end.python_client import MODES, connected, run, text_of
from tests.end_to_end.running_gateway import FORMS, RunningGateway
from tests.node.node_client import run_node_client


@pytest.fixture(scope="module")
def shop() -> Iterator[GrpcShop]:
    with grpc_shop() as running:
        yield running


@pytest.fixture(scope="module", params=FORMS)
def gateway(request: pytest.FixtureRequest, start_gateway: StartGateway, shop: GrpcShop) -> Iterator[RunningGateway]:
    with start_gateway(request.param, [{"name": "shop", "grpc": shop.address}]) as running:
        yield running


@pytest.mark.parametrize("mode", MODES)
def test_methods_are_tools_and_streams_are_progress(mode: str, gateway: RunningGateway) -> None:
    async def conversation() -> None:
        seen: list[float] = []

        async def note(progress: float, total: float | None, message: str | None) -> None:
            seen.append(progress)

        async with connected(gateway.endpoint(), mode) as (client, _):
            assert [tool.name for tool in (await client.list_tools()).tools] == ["shop__Catalog_Find", "shop__Catalog_Watch"]
            found = await client.call_tool("shop__Catalog_Find", {"namePart": "a", "limit": 2})
            assert found.structured_content == {"name": "a/", "count": 2}
            missing = await client.call_tool("shop__Catalog_Find", {"namePart": "missing"})
            assert (missing.is_error, text_of(missing)) == (True, "gRPC NOT_FOUND: no such item")
            watched = await client.call_tool("shop__Catalog_Watch", {"namePart": "w", "limit": 3}, progress_callback=note)
            assert len(watched.structured_content["messages"]) == 3
            assert seen == [1, 2, 3]

    run(conversation())


@pytest.mark.node_js
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_the_typescript_client_lists_them(mode: Any, gateway: RunningGateway) -> None:
    assert "Catalog_Find" in str(run_node_client(gateway.endpoint("shop"), mode)["tools"])
