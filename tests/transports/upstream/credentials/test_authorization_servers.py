"""What is asked of servers and authorization servers, and how little of it is believed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed
from mcp_gateway.transports.upstream.credentials.authorization_flow import ClientIdentity, FlowRefused
from mcp_gateway.transports.upstream.credentials.authorization_servers import AuthorizationServers
from mcp_gateway.transports.upstream.credentials.discovery import MetadataRefused
from tests.transports.upstream.credentials.scripted_servers import ISSUER, SERVER, ScriptedFetch, away, backend, servers

RESOURCE = "https://files.example/.well-known/oauth-protected-resource"
METADATA = f"{ISSUER}/.well-known/oauth-authorization-server"


def test_a_server_names_its_authorization_server_and_that_describes_itself() -> None:
    fetch = ScriptedFetch()
    resource, server = asyncio.run(servers(fetch).discover(""))
    assert (resource.resource, server.issuer, server.token_endpoint) == (SERVER, ISSUER, f"{ISSUER}/token")
    assert fetch.asked == [f"{RESOURCE}/mcp", METADATA]
    assert not any(rules.allow_private for rules in fetch.rules)


def test_what_a_challenge_names_is_asked_and_nothing_else_of_the_server() -> None:
    fetch = ScriptedFetch()
    fetch.places["https://files.example/meta"] = {"resource": SERVER, "authorization_servers": [ISSUER]}
    asyncio.run(servers(fetch).discover("https://files.example/meta"))
    assert fetch.asked == ["https://files.example/meta", METADATA]


@pytest.mark.parametrize("replica", ["wss://files.example/mcp", "sse+https://files.example/mcp"])
def test_metadata_of_another_transport_is_asked_for_over_http_at_the_same_origin(replica: str) -> None:
    fetch = ScriptedFetch()
    own = {"auth": "client_credentials", "client_id": "gw"}
    assert asyncio.run(servers(fetch, replicas=(replica,), **own).discover(""))[0].resource == SERVER
    assert fetch.asked[0] == f"{RESOURCE}/mcp"


def test_openid_discovery_is_asked_where_the_other_is_not_there() -> None:
    fetch = ScriptedFetch()
    fetch.places[f"{ISSUER}/.well-known/openid-configuration"] = fetch.places.pop(METADATA)
    assert asyncio.run(servers(fetch).discover(""))[1].issuer == ISSUER


def test_a_server_without_metadata_is_its_own_authorization_server() -> None:
    """Source: MCP 2025-03-26, basic/authorization, section 2.3.3."""
    fetch = ScriptedFetch()
    fetch.places.clear()
    resource, server = asyncio.run(servers(fetch).discover(""))
    assert (resource.resource, server.token_endpoint) == (SERVER, "https://files.example/token")


@pytest.mark.parametrize(
    ("changed", "settings", "error"),
    [
        ({METADATA: {"issuer": "https://evil.example", "token_endpoint": "https://evil.example/t"}}, {}, MetadataRefused),
        ({f"{RESOURCE}/mcp": {"resource": "https://evil.example", "authorization_servers": [ISSUER]}}, {}, MetadataRefused),
        ({}, {"issuer": "https://other.example"}, MetadataRefused),
        ({METADATA: 404}, {}, MetadataRefused),
        ({METADATA: 500}, {}, FetchFailed),
        ({METADATA: away()}, {}, FetchFailed),
        ({f"{RESOURCE}/mcp": 503}, {}, FetchFailed),
    ],
)
def test_what_speaks_for_another_or_cannot_be_asked_ends_it(
    changed: dict[str, Any], settings: dict[str, Any], error: type[Exception]
) -> None:
    fetch = ScriptedFetch()
    fetch.places |= changed
    with pytest.raises(error):
        asyncio.run(servers(fetch, **settings).discover(""))


def test_an_operator_may_name_the_only_issuer_that_is_believed() -> None:
    fetch = ScriptedFetch()
    del fetch.places[f"{RESOURCE}/mcp"]
    assert asyncio.run(servers(fetch, issuer=ISSUER).discover(""))[1].issuer == ISSUER


def test_a_secret_is_read_each_time_and_sent_in_the_way_that_the_server_takes(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("first\n")
    asking = servers(ScriptedFetch(), client_id="gw", client_secret_file=str(path), issuer=ISSUER)
    assert asking.configured_identity(None) == ClientIdentity("gw", "first", "client_secret_basic")
    path.write_text("second")
    assert asking.configured_identity(None).secret == "second"
    path.unlink()
    with pytest.raises(FlowRefused, match="client_secret_file"):
        asking.configured_identity(None)
    assert servers(ScriptedFetch(), client_id="gw").configured_identity(None) == ClientIdentity("gw")


@pytest.mark.parametrize(
    "told",
    [
        "https://127.0.0.1:{port}/meta",
        "https://localhost:{port}/meta",
        "https://[::1]:{port}/meta",
        "https://[::ffff:127.0.0.1]:{port}/meta",
        "https://2130706433:{port}/meta",
        "http://127.0.0.1:{port}/meta",
        "https://169.254.169.254/latest/meta-data",
        "https://user@127.0.0.1:{port}/meta",
        "file:///etc/passwd",
    ],
)
def test_a_server_leads_the_gateway_to_nothing_on_its_own_network(told: str) -> None:
    """A challenge is what a stranger says. Source: MCP security best practices, "Server-Side Request Forgery"."""

    async def body() -> None:
        connections = []
        listener = await asyncio.start_server(lambda reader, writer: connections.append(writer.close()), "127.0.0.1", 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(FetchFailed):
                await AuthorizationServers(backend()).discover(told.format(port=port))
        assert connections == []

    asyncio.run(body())
