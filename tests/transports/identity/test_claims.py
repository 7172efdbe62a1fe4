"""Which audiences are ours. What else is read from claims: test_jwt_verification.py, by tokens that hold them."""

from __future__ import annotations

import pytest

from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.identity.claims import audience_of

DERIVED = IssuerSettings(issuer="https://id.example")
NAMED = IssuerSettings(issuer="https://id.example", audience=("gateway", "https://gw.example/mcp"))


@pytest.mark.parametrize("public_url", ["https://gw.example", "https://gw.example/", "https://gw.example/base"])
@pytest.mark.parametrize("below", ["", "/", "/mcp", "/mcp/servers/files", "/mcp/ws"])
def test_an_address_of_the_gateway_is_an_audience(public_url: str, below: str) -> None:
    assert audience_of(DERIVED, public_url).has(public_url.rstrip("/") + below)


@pytest.mark.parametrize(
    "audience",
    [
        "",
        "/",
        "https://gw.example.evil",
        "https://gw.example/mcpx",
        "https://gw.example/other",
        "http://gw.example",
        "gw.example",
    ],
)
def test_what_only_looks_like_it_is_none(audience: str) -> None:
    assert not audience_of(DERIVED, "https://gw.example").has(audience)


def test_a_named_audience_takes_the_place_of_the_address() -> None:
    audience = audience_of(NAMED, "https://gw.example")
    assert audience.has("gateway")
    assert audience.has("https://gw.example/mcp")
    assert not audience.has("https://gw.example")
    assert not audience.has("gatewa")


@pytest.mark.parametrize(
    ("audiences", "servers"),
    [
        (["https://gw.example"], ()),
        (["https://gw.example/mcp"], ()),
        (["https://gw.example/mcp/ws"], ()),
        (["https://gw.example/mcp/servers/a"], ("a",)),
        (["https://gw.example/mcp/servers/a/"], ("a",)),
        (["https://gw.example/mcp/servers/a/sse"], ("a",)),
        (["https://gw.example/mcp/servers/a", "https://gw.example/mcp/servers/b", "https://other.example"], ("a", "b")),
        (["https://gw.example/mcp/servers/a", "https://gw.example/mcp"], ()),
        (["https://gw.example/mcp/servers/"], None),
        (["https://other.example/mcp/servers/a"], None),
        ([], None),
    ],
)
def test_a_token_for_a_server_is_for_that_one_and_one_for_all_of_them_for_each(
    audiences: list[str], servers: tuple[str, ...] | None
) -> None:
    found = audience_of(DERIVED, "https://gw.example/").servers_of(audiences)
    assert found == (None if servers is None else frozenset(servers))


def test_a_named_audience_is_for_the_gateway_as_a_whole() -> None:
    issuer = IssuerSettings(issuer="https://id.example", audience=("https://gw.example/mcp/servers/a",))
    assert audience_of(issuer, "https://gw.example").servers_of(["https://gw.example/mcp/servers/a"]) == frozenset()
