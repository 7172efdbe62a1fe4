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
