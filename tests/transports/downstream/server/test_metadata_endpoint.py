"""The metadata where clients look for it, with and without a proxy before the gateway."""

from __future__ import annotations

import json

import pytest

from tests.doubles.known_clients import ISSUER, KnownClients, bearer, on_guarded_cell
from tests.doubles.raw_http_client import RawClient, on_cell
from tests.doubles.running_cell import RunningCell

WELL_KNOWN = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize("path", ["", "/mcp", "/mcp/servers/demo"])
def test_the_metadata_is_there_for_everybody_at_the_address_that_was_asked(path: str) -> None:
    """Source: RFC 9728, section 3.1."""

    async def body(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client:
            for headers in ({}, bearer("forged"), {"Host": "localhost"}):
                answer = await client.ask("GET", WELL_KNOWN + path, **headers)
                assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
                found = json.loads(answer.body)
                host = headers.get("Host", f"127.0.0.1:{client.port}")
                assert (found["resource"], found["authorization_servers"]) == (f"http://{host}{path}", [ISSUER])
            assert (await client.ask("GET", f"{WELL_KNOWN}/nowhere")).status == 404
            assert (await client.ask("POST", WELL_KNOWN + path)).status == 405
        assert clients.asked == []

    on_guarded_cell(body)


def test_the_address_is_the_public_one_where_it_is_configured() -> None:
    """Clients put what is well known before the path of the address. Source: RFC 8615, section 3; RFC 9728, section 3.1."""

    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            for path in ("/mcp", "/tools/mcp"):
                found = json.loads((await client.ask("GET", WELL_KNOWN + path)).body)
                assert found["resource"] == "https://gateway.example/tools/mcp"
            said = (await client.ask("GET", "/mcp")).headers["www-authenticate"]
            assert f'resource_metadata="https://gateway.example/tools{WELL_KNOWN}/mcp"' in said

    on_guarded_cell(body, gateway={"public_url": "https://gateway.example/tools/"})


def test_the_address_is_that_of_the_proxy_where_it_is_trusted() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            told = {"X_Forwarded_For": "9.9.9.9", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "gateway.example"}
            found = json.loads((await client.ask("GET", f"{WELL_KNOWN}/mcp", **told)).body)
            assert found["resource"] == "https://gateway.example/mcp"

    on_guarded_cell(body, gateway={"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["gateway.example"]})


def test_without_authentication_there_is_no_metadata() -> None:
    async def body(cell: RunningCell) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("GET", WELL_KNOWN)).status == 404

    on_cell(body)
