"""A tool whose argument is repeated in a header is called by every client, whether its transport has headers or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.places import conformance_server
from tests.conformance.suite import Era
from tests.conftest import StartGateway
from tests.end_to_end.matrix import CLIENTS, REVISION, ClientKind
from tests.end_to_end.python_client import connected, run, text_of
from tests.end_to_end.running_gateway import RunningGateway


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway) -> Iterator[RunningGateway]:
    eras: tuple[Era, Era] = ("legacy", "modern")
    with conformance_server(eras[0]) as legacy, conformance_server(eras[1]) as modern:
        backends = [{"name": "legacy", "replicas": [legacy.url]}, {"name": "modern", "replicas": [modern.url]}]
        with start_gateway("embedded", backends) as gateway:
            yield gateway


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("client_kind", CLIENTS, ids=lambda client: client.name)
def test_the_argument_reaches_the_tool(gateway: RunningGateway, client_kind: ClientKind, server: str) -> None:
    async def converse() -> None:
        mode = "legacy" if client_kind.era == "legacy" else REVISION["modern"]
        async with connected(client_kind.url(gateway, server), mode) as (client, _):
            await client.list_tools()  # over HTTP the client learns from it which headers to send
            for region in ("eu", "ü", " padded "):
                assert text_of(await client.call_tool("test_header_parameter", {"region": region})) == region

    run(converse())
