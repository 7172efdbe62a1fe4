"""What the gateway says of itself to clients that are to log in: its metadata, and the challenge that leads there. Pure.

Source: RFC 9728; MCP 2025-11-25 and 2026-07-28, basic/authorization, "Protected Resource Metadata Discovery Requirements".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.transports.ports.hash_keys import query_value
from mcp_gateway.transports.protocol.mcp.refusals import Refused

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_MCP: Final = "/mcp"
_SERVER: Final = re.compile(r"(/mcp/servers/[A-Za-z0-9._~%-]+)(?:/.*)?")  # what else a path may hold must not leave the quotes
_NAMED_IN_QUERY: Final = ("/mcp/ws", "/mcp/websocket", "/mcp/sse/connect", "/mcp/sse", "/sse")
_SAID_ELSEWHERE: Final = ("/mcp/ticket", "/mcp/sse/messages", "/mcp/messages", "/messages")
"""A ticket is looked at again where it is used, a message goes to a stream that has its own server."""

_NOT_IN_QUOTES: Final = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_LONGEST_DESCRIPTION: Final = 200


def resource_path(path: str) -> str:
    """The resource that an address belongs to: one server, all of them as one, or the gateway as a whole ("")."""
    if (server := _SERVER.fullmatch(path)) is not None:
        return server[1]
    return _MCP if path == _MCP or path.startswith(f"{_MCP}/") else ""


def endpoint_at(path: str, query: str) -> str | None:
    """The server that a client reaches at this address; "" for all as one, None where others say which one that is."""
    if (server := _SERVER.fullmatch(path)) is not None:
        return unquote(server[1].removeprefix(f"{_MCP}/servers/"))
    if path in _NAMED_IN_QUERY:
        return query_value(query, "backend") or ""
    return None if path in _SAID_ELSEWHERE else ""


def metadata(base: str, path: str, auth: AuthSettings, *, asks_for_certificates: bool = False) -> dict[str, Any] | None:
    """The metadata of the resource at this path below `base`; None where that is none.

    asks_for_certificates: whether clients may show one, so that tokens can be bound to it.
    Whether there is such a server it does not tell: that is for those who have logged in.
    """
    if path != resource_path(path):
        return None
    found: dict[str, Any] = {
        "resource": f"{base}{path}",
        "authorization_servers": [each.issuer for each in auth.issuers],
        "bearer_methods_supported": ["header"],
        "resource_name": "mcp-gateway",
    }
    if asks_for_certificates:
        found["tls_client_certificate_bound_access_tokens"] = True
    if auth.scopes:
        found["scopes_supported"] = list(auth.scopes)
    return found


def challenge(refused: Refused, base: str, path: str, auth: AuthSettings, granted: Iterable[str] = ()) -> str | None:
    """`WWW-Authenticate` of a refusal that another token might help; None for all others.

    path:    that was asked for.
    granted: the scopes that the client has. Those that the gateway knows of are named with what is missing: some clients ask for
             what is named and nothing else, and would lose them.

    Source: RFC 6750, section 3; RFC 9728, section 5.1; MCP 2025-11-25, basic/authorization, "Scope Challenge Handling".
    """
    error = refused.data.get("error")
    if refused.reason == "insufficient_scope":
        error = "insufficient_scope"
        needed = [*refused.data.get("scopes", ())]
        scopes = [*needed, *(scope for scope in auth.scopes if scope in set(granted) and scope not in needed)]
    elif refused.reason == "unauthorized" or error == "invalid_request":
        scopes = [*(refused.data.get("scopes") or auth.scopes)]
    else:
        return None
    parts = {
        "error": error,
        "error_description": _NOT_IN_QUOTES.sub(" ", refused.text)[:_LONGEST_DESCRIPTION] if error else None,
        "resource_metadata": f"{base}{WELL_KNOWN}{resource_path(path)}" if auth.issuers else None,
        "scope": " ".join(scopes),
    }
    return "Bearer " + (", ".join(f'{name}="{text}"' for name, text in parts.items() if text) or 'realm="mcp-gateway"')
