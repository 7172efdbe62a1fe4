"""Where metadata lies, and what of it is believed."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.credentials.discovery import (
    MetadataRefused,
    ProtectedResource,
    is_same_issuer,
    read_authorization_server,
    read_protected_resource,
    resource_metadata_urls,
    server_metadata_urls,
    undescribed_authorization_server,
    undescribed_resource,
)

SERVER = "https://files.example/team/mcp"
ISSUER = "https://id.example/tenant"
WELL_KNOWN = "/.well-known/"


def resource(**members: Any) -> bytes:
    return msgspec.json.encode({"resource": SERVER, "authorization_servers": [ISSUER], **members})


def server(**members: Any) -> bytes:
    return msgspec.json.encode({"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token", **members})


def test_a_server_is_asked_where_its_challenge_says_and_else_at_its_path_and_its_root() -> None:
    """Source: RFC 9728, section 3.1; MCP 2025-11-25, basic/authorization, "Authorization Server Location"."""
    assert resource_metadata_urls(SERVER, "https://files.example/meta") == ["https://files.example/meta"]
    root = f"https://files.example{WELL_KNOWN}oauth-protected-resource"
    assert resource_metadata_urls(SERVER, "") == [f"{root}/team/mcp", root]
    assert resource_metadata_urls("https://files.example/", "") == [root]


def test_an_authorization_server_is_asked_in_the_order_of_the_specification() -> None:
    """Source: MCP 2025-11-25, basic/authorization, "Authorization Server Metadata Discovery"."""
    assert server_metadata_urls(ISSUER) == [
        f"https://id.example{WELL_KNOWN}oauth-authorization-server/tenant",
        f"https://id.example{WELL_KNOWN}openid-configuration/tenant",
        f"https://id.example/tenant{WELL_KNOWN}openid-configuration",
    ]
    assert server_metadata_urls("https://id.example") == [
        f"https://id.example{WELL_KNOWN}oauth-authorization-server",
        f"https://id.example{WELL_KNOWN}openid-configuration",
    ]


@pytest.mark.parametrize(
    "own", [SERVER, "https://files.example/team", "https://FILES.example:443/team/", "https://files.example"]
)
def test_metadata_counts_for_the_server_and_for_what_lies_below_it(own: str) -> None:
    found = read_protected_resource(resource(resource=own, scopes_supported=["read", 7]), SERVER)
    assert found == ProtectedResource(own, (ISSUER,), ("read",))


@pytest.mark.parametrize(
    "members",
    [
        {"resource": "https://evil.example/team/mcp"},
        {"resource": "https://files.example/tea"},
        {"resource": "https://files.example/team/mcp/more"},
        {"resource": "https://files.example:8443/team/mcp"},
        {"resource": "http://files.example/team/mcp"},
        {"resource": "https://files.example@evil.example/team/mcp"},
        {"resource": "https://[files"},
        {"resource": 7},
        {"authorization_servers": []},
        {"authorization_servers": "https://id.example"},
    ],
)
def test_metadata_of_another_server_is_refused(members: dict[str, Any]) -> None:
    """Source: RFC 9728, section 3.3."""
    with pytest.raises(MetadataRefused):
        read_protected_resource(resource(**members), SERVER)


@pytest.mark.parametrize("issuer", [f"{ISSUER}/", "https://ID.example/tenant", "https://id.example:443/tenant", 7, None])
def test_an_issuer_is_the_one_that_was_asked_for_to_the_letter(issuer: Any) -> None:
    """Source: RFC 8414, section 3.3."""
    with pytest.raises(MetadataRefused):
        read_authorization_server(server(issuer=issuer), ISSUER)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("https://id.example", "https://id.example/", True),
        ("https://id.example/tenant", "https://id.example/tenant/", False),
        ("https://id.example//", "https://id.example/", False),
        ("https://id.example", "https://ID.example/", False),
        ("https://id.example?", "https://id.example?/", False),
        ("", "/", False),
    ],
)
def test_only_the_slash_of_a_root_may_differ(one: str, other: str, expected: bool) -> None:
    assert is_same_issuer(one, other) is is_same_issuer(other, one) is expected


def test_what_an_authorization_server_offers_is_read() -> None:
    members = {
        "authorization_endpoint": f"{ISSUER}/authorize",
        "code_challenge_methods_supported": ["plain", "S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
    }
    found = read_authorization_server(server(**members), ISSUER)
    assert (found.has_pkce, found.auth_methods, found.names_issuer, found.takes_metadata_url) == (True, ("none",), True, True)
    assert read_authorization_server(server(), ISSUER).has_pkce is None
    assert read_authorization_server(server(code_challenge_methods_supported=["plain"]), ISSUER).has_pkce is False


def test_a_server_without_metadata_is_its_own_authorization_server() -> None:
    """Source: MCP 2025-03-26, basic/authorization, section 2.3.3."""
    assert undescribed_resource(SERVER) == ProtectedResource(SERVER, ("https://files.example",))
    found = undescribed_authorization_server(SERVER)
    assert (found.authorization_endpoint, found.token_endpoint) == (
        "https://files.example/authorize",
        "https://files.example/token",
    )


_NAMES = st.sampled_from(["issuer", "resource", "token_endpoint", "authorization_servers"])
_DOCUMENTS = st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner))


@given(st.binary() | _DOCUMENTS.map(msgspec.json.encode))
def test_any_document_is_read_or_refused(body: bytes) -> None:
    for read, about in ((read_protected_resource, SERVER), (read_authorization_server, ISSUER)):
        with contextlib.suppress(MetadataRefused):
            read(body, about)
