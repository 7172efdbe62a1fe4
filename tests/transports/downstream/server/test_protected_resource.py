"""Where clients log in: the metadata of each resource, and the challenges that lead there."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import AuthSettings, IssuerSettings
from mcp_gateway.transports.downstream.server.protected_resource import challenge, endpoint_at, metadata, resource_path
from mcp_gateway.transports.protocol.mcp.refusals import Refused

BASE = "https://gateway.example"
AUTH = AuthSettings(issuers=(IssuerSettings(issuer="https://id.example", audience=("a",)),), scopes=("read", "write"))
LEADS = 'resource_metadata="https://gateway.example/.well-known/oauth-protected-resource/mcp"'


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("", ""),
        ("/", ""),
        ("/sse", ""),
        ("/metrics", ""),
        ("/mcpx", ""),
        ("/mcp", "/mcp"),
        ("/mcp/ws", "/mcp"),
        ("/mcp/sse/connect", "/mcp"),
        ("/mcp/servers", "/mcp"),
        ("/mcp/servers/files", "/mcp/servers/files"),
        ("/mcp/servers/files/mcp", "/mcp/servers/files"),
        ("/mcp/servers/files/sse", "/mcp/servers/files"),
        ('/mcp/servers/a",scope="admin', "/mcp"),
        ("/mcp/servers/a\\b", "/mcp"),
    ],
)
def test_an_address_belongs_to_a_resource_that_it_is_at_or_below(path: str, resource: str) -> None:
    """Clients take metadata for theirs only where its resource is their address or begins it."""
    assert resource_path(path) == resource


@pytest.mark.parametrize("path", ["", "/mcp", "/mcp/servers/files", "/mcp/servers/no-such-server"])
def test_the_metadata_names_the_resource_that_was_asked_about(path: str) -> None:
    """Source: RFC 9728, section 3.3: the two MUST be identical."""
    assert metadata(BASE, path, AUTH) == {
        "resource": f"{BASE}{path}",
        "authorization_servers": ["https://id.example"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["read", "write"],
        "resource_name": "mcp-gateway",
    }
    assert "scopes_supported" not in (metadata(BASE, path, AuthSettings()) or {})


@pytest.mark.parametrize("path", ["/", "/metrics", "/mcp/ws", "/mcp/", "/mcp/servers/files/mcp", "/etc/passwd"])
def test_what_is_no_resource_has_no_metadata(path: str) -> None:
    assert metadata(BASE, path, AUTH) is None


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (Refused("unauthorized", "log in"), f'Bearer {LEADS}, scope="read write"'),
        (Refused("unauthorized", "log in", data={"scopes": ["operate"]}), f'Bearer {LEADS}, scope="operate"'),
        (
            Refused("unauthorized", 'the "token" is\r\nold', data={"error": "invalid_token"}),
            f'Bearer error="invalid_token", error_description="the  token  is  old", {LEADS}, scope="read write"',
        ),
        (
            Refused("insufficient_scope", "more is needed", data={"scopes": ["write", "admin"]}),
            f'Bearer error="insufficient_scope", error_description="more is needed", {LEADS}, scope="write admin"',
        ),
        (Refused("forbidden", "never"), None),
        (Refused("origin_forbidden", "no"), None),
        (Refused("invalid_request", "no"), None),
    ],
)
def test_a_refusal_that_another_token_helps_leads_to_one(refused: Refused, says: str | None) -> None:
    assert challenge(refused, BASE, "/mcp", AUTH) == says


def test_a_step_up_keeps_what_the_client_has_of_the_scopes_of_this_gateway() -> None:
    """Source: MCP 2025-11-25, basic/authorization, "Runtime Insufficient Scope Errors", the recommended approach."""
    refused = Refused("insufficient_scope", "more", data={"scopes": ["write"]})
    said = challenge(refused, BASE, "/mcp", AUTH, {"read", "openid", "write"})
    assert said is not None
    assert said.endswith('scope="write read"')


def test_without_an_issuer_there_is_nowhere_to_log_in() -> None:
    assert challenge(Refused("unauthorized", "no"), BASE, "/mcp", AuthSettings()) == 'Bearer realm="mcp-gateway"'


@given(st.text())
def test_a_challenge_is_one_line_whatever_the_reason(text: str) -> None:
    said = challenge(Refused("unauthorized", text, data={"error": "invalid_token"}), BASE, "/mcp", AUTH)
    assert said is not None
    assert re.fullmatch(r'Bearer (?:[a-z_]+="[\x20\x21\x23-\x5b\x5d-\x7e]*"(?:, )?)+', said)


@pytest.mark.parametrize(
    ("path", "query", "endpoint"),
    [
        ("/mcp", "", ""),
        ("/mcp", "backend=a", ""),
        ("/mcp/ws", "", ""),
        ("/mcp/ws", "backend=a", "a"),
        ("/mcp/websocket", "vsn=2.0.0&backend=a", "a"),
        ("/mcp/sse/connect", "backend=a", "a"),
        ("/sse", "backend=a", "a"),
        ("/mcp/servers/a", "", "a"),
        ("/mcp/servers/a", "backend=b", "a"),
        ("/mcp/servers/a/mcp", "", "a"),
        ("/mcp/servers/%61", "", "a"),
        ("/mcp/servers/a/sse", "backend=b", "a"),
        ("/mcp/sse/messages", "session_id=x", None),
        ("/mcp/ticket", "", None),
        ("/mcp/sse/events/client.a", "backend=a", ""),
        ("/metrics", "", ""),
        ("/", "", ""),
    ],
)
def test_the_server_that_is_reached_is_the_one_that_the_endpoint_serves(path: str, query: str, endpoint: str | None) -> None:
    assert endpoint_at(path, query) == endpoint
