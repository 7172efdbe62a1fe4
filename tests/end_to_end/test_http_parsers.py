"""A gateway whose clients are read by the parser that is not the default: every transport is served by it as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import StartGateway
from tests.doubles.http_parser import OTHER
from tests.end_to_end.every_transport import WAYS
from tests.end_to_end.python_client import connected, run, text_of
from tests.end_to_end.raw_http import modern
from tests.end_to_end.running_gateway import RunningGateway


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[RunningGateway]:
    demo = {"name": "demo", "prefix": "", "builtin": "demo"}
    with start_gateway("embedded", [demo], gateway={"http_parser": OTHER}) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
def test_a_request_is_answered(way: str, gateway: RunningGateway) -> None:
    async def converse() -> None:
        body, _ = modern({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        answer = await WAYS[way](gateway.url, body)
        assert "echo" in [tool["name"] for tool in answer["result"]["tools"]]

    run(converse())


@pytest.mark.parametrize("transport", ["streamable_http", "http_sse", "websocket"])
def test_a_session_has_its_calls_and_their_events(
    transport: str, gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "transport", transport)

    async def converse() -> None:
        async with connected(gateway.endpoint(), "legacy") as (client, _):
            for text in ("a", "b" * 300_000):
                assert text_of(await client.call_tool("echo", {"message": text})) == text
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert "echo" in names

    run(converse())
