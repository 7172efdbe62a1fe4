"""A real gRPC server, found out by its reflection and called."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import CredentialRefused, ShowToken, UpstreamError
from mcp_gateway.transports.upstream.adapted.adapted_conversation import ToolOutcome, WrongArguments
from mcp_gateway.transports.upstream.grpc import grpc_source
from mcp_gateway.transports.upstream.grpc.grpc_source import GrpcSource
from tests.doubles.grpc_guard import WantsToken
from tests.doubles.grpc_shop import GrpcShop, grpc_shop
from tests.doubles.ports import free_port


@pytest.fixture(scope="module")
def shop() -> Iterator[GrpcShop]:
    with grpc_shop() as running:
        yield running


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


async def with_source(address: str, use: Any, most_bytes: int = 100_000, show: ShowToken | None = None, **fields: Any) -> Any:
    source = GrpcSource(BackendSettings(name="shop", prefix="", grpc=address, **fields), most_bytes, show)
    try:
        return await use(source)
    finally:
        await source.close()


def called(address: str, name: str, arguments: dict[str, Any], *, timeout_s: float = 10.0, **fields: Any) -> Any:
    """(outcome, what was reported)."""
    told: list[tuple[float, str]] = []

    async def report(progress: float, text: str) -> None:
        told.append((progress, text))

    async def use(source: GrpcSource) -> ToolOutcome | None:
        return await source.call(name, arguments, timeout_s, report)

    return run(with_source(address, use, **fields)), told


def test_methods_that_take_one_message_are_tools(shop: GrpcShop) -> None:
    async def use(source: GrpcSource) -> Any:
        await source.probe(5.0)
        return await source.tools()

    tools = run(with_source(shop.address, use))
    assert [tool["name"] for tool in tools] == ["Catalog_Find", "Catalog_Watch"]
    assert tools[1]["description"] == "shop.v1.Catalog.Watch: takes shop.v1.Query, gives any number of shop.v1.Item."


def test_a_call_gives_structured_content_and_headers_go_as_metadata(shop: GrpcShop) -> None:
    arguments = {"namePart": "a", "limit": 3, "tags": ["x", "y"]}
    outcome, told = called(shop.address, "Catalog_Find", arguments, headers={"Authorization": "Bearer k"})
    assert (outcome.structured, outcome.is_error, told) == ({"name": "a/x+y", "count": 3}, False, [])
    assert shop.metadata[-1]["authorization"] == "Bearer k"
    assert called(shop.address, "nothing", {})[0] is None


def test_a_stream_is_progress_and_a_list(shop: GrpcShop) -> None:
    outcome, told = called(shop.address, "Catalog_Watch", {"namePart": "w", "limit": 3})
    assert outcome.structured == {"messages": [{"name": "w", "count": number} for number in (1, 2, 3)]}
    assert told == [(number, f'{{"name": "w", "count": {number}}}') for number in (1, 2, 3)]


def test_a_stream_without_end_ends_at_its_bounds(shop: GrpcShop, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, _ = called(shop.address, "Catalog_Watch", {"namePart": "many"}, most_bytes=1_000)
    assert outcome.is_error
    monkeypatch.setattr(grpc_source, "MOST_MESSAGES", 5)
    assert called(shop.address, "Catalog_Watch", {"namePart": "w", "limit": 5})[0].is_error is False
    assert called(shop.address, "Catalog_Watch", {"namePart": "w", "limit": 6})[0].is_error


def test_what_the_method_refuses_is_an_error_with_its_code(shop: GrpcShop) -> None:
    outcome, _ = called(shop.address, "Catalog_Find", {"namePart": "missing"})
    assert (outcome.is_error, outcome.content[0]["text"]) == (True, "gRPC NOT_FOUND: no such item")
    assert outcome.structured == {"code": "NOT_FOUND", "message": "no such item"}


def test_arguments_that_do_not_fit_and_calls_that_take_too_long(shop: GrpcShop) -> None:
    with pytest.raises(WrongArguments, match="nope"):
        called(shop.address, "Catalog_Find", {"nope": 1})
    with pytest.raises(UpstreamError) as caught:
        called(shop.address, "Catalog_Find", {"namePart": "slow"}, timeout_s=0.5)
    assert caught.value.fate is Fate.TIMED_OUT


@pytest.mark.parametrize(
    ("options", "says"), [({"has_reflection": False}, "reflection is off"), ({"services": ["gone.X"]}, "gone.X")]
)
def test_a_server_that_does_not_tell_its_services_is_told_so(options: dict[str, Any], says: str) -> None:
    with grpc_shop(**options) as shop, pytest.raises(UpstreamError, match=says):
        called(shop.address, "Catalog_Find", {})


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(UpstreamError) as caught:
        called(f"127.0.0.1:{free_port()}", "Catalog_Find", {})
    assert caught.value.fate is Fate.UNREACHABLE


def test_a_source_that_is_closed_cancels_nobody_who_waits_for_it(shop: GrpcShop) -> None:
    async def use(source: GrpcSource) -> UpstreamError:
        before = len(shop.metadata)
        task = asyncio.create_task(source.call("Catalog_Find", {"namePart": "slow"}, 20.0, ignore_report))
        while len(shop.metadata) == before:
            await asyncio.sleep(0.01)
        await source.close()
        with pytest.raises(UpstreamError) as raised:
            await task
        return raised.value

    assert run(with_source(shop.address, use)).fate is Fate.CUT


async def ignore_report(progress: float, text: str) -> None:
    """Nobody reads it."""


def test_methods_and_calls_show_a_token_and_a_fresh_one_where_it_is_refused() -> None:
    held = ["t1"]
    wants = WantsToken(lambda token: token == held[-1])

    async def show(ask: Callable[[Mapping[str, str]], Awaitable[Any]]) -> Any:
        for token in ("t1", "t2"):
            try:
                return await ask({"authorization": f"Bearer {token}"})
            except CredentialRefused as refused:
                last = refused
        raise UpstreamError(Fate.REFUSED, "neither is taken", reason="forbidden") from last

    async def report(progress: float, text: str) -> None:
        held.append("t3")

    async def use(source: GrpcSource) -> None:
        assert len(await source.tools()) == 2
        held.append("t2")
        for name in ("Catalog_Find", "Catalog_Watch"):
            outcome = await source.call(name, {"limit": 1}, 10.0, report)
            assert outcome is not None
            assert not outcome.is_error
        with pytest.raises(UpstreamError, match="neither is taken"):
            await source.call("Catalog_Find", {}, 10.0, report)

    with grpc_shop(interceptors=[wants]) as shop:
        run(with_source(shop.address, use, show=show))
    assert set(wants.seen[-6:]) == {"Bearer t1", "Bearer t2"}
