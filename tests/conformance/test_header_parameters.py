"""A tool whose argument is repeated in a header is called by every client, whether its transport has headers or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.places import conformance_server
from tests.conformance.suite import Era
from tests.conftest import StartGateway
from tests.doubles.ports import free_port
from tests.end_to_end.matrix import CLIENTS, ClientKind, Site
from tests.end_to_end.python_client import run, text_of


@pytest.fixture(scope="module")
def site(start_gateway: StartGateway) -> Iterator[Site]:
    eras: tuple[Era, Era] = ("legacy", "modern")
    with conformance_server(eras[0]) as legacy, conformance_server(eras[1]) as modern:
        backends = [{"name": "legacy", "replicas": [legacy.url]}, {"name": "modern", "replicas": [modern.url]}]
        port = free_port()
        with start_gateway("embedded", backends, grpc={"port": port}) as gateway:
            yield Site(gateway, port, {})


@pytest.mark.parametrize("server", ["legacy", "modern"])
@pytest.mark.parametrize("client_kind", CLIENTS, ids=lambda client: client.name)
def test_the_argument_reaches_the_tool(site: Site, client_kind: ClientKind, server: str) -> None:
    async def converse() -> None:
        async with client_kind.connected(site, server) as (client, _):
            await client.list_tools()  # over HTTP the client learns from it which headers to send
            for region in ("eu", "ü", " padded "):
                assert text_of(await client.call_tool("test_header_parameter", {"region": region})) == region

    run(converse())
