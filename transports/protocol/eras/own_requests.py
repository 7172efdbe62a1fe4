"""What the gateway says to servers in its own name, or for a client that does not say it itself. Pure.

Source: MCP 2026-07-28, server/discover and basic/patterns/subscriptions; MCP 2025-11-25, basic/lifecycle, basic/utilities/ping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST_LEGACY

from .translation import modern_params

CLIENT_INFO: Final = {"name": "mcp-gateway", "version": VERSION}
INITIALIZED: Final = Notification("notifications/initialized", b"")

# Ids as JSON, one for each purpose; a client's own request in the same session hardly has one of them.
ERA_ID: Final = b'"mcp-gateway-era"'
PROBE_ID: Final = b'"mcp-gateway-probe"'
OPEN_ID: Final = b'"mcp-gateway-open"'
MOVE_ID: Final = b'"mcp-gateway-move"'
CACHE_ID: Final = b'"mcp-gateway-cache"'
TRANSPORT_ID: Final = b'"mcp-gateway-transport"'
TOOLS_ID: Final = b'"mcp-gateway-tools"'
REOPEN_ID: Final = b'"mcp-gateway-reopen"'
CONSENT_ID: Final = b'"mcp-gateway-consent"'

_encode = msgspec.json.encode


def restore_id(number: int) -> bytes:
    """Of the requests that restore one session, each has its own."""
    return b'"mcp-gateway-restore-%d"' % number


def discover(
    request_id: bytes, client_info: Mapping[str, Any] = CLIENT_INFO, capabilities: Mapping[str, Any] | None = None
) -> Request:
    return _modern_request(request_id, "server/discover", b"", client_info, capabilities)


def listen(
    request_id: bytes,
    notifications: Mapping[str, Any],
    client_info: Mapping[str, Any] = CLIENT_INFO,
    capabilities: Mapping[str, Any] | None = None,
) -> Request:
    """notifications: what to subscribe to, as `subscriptions/listen` names it."""
    params = _encode({"notifications": notifications})
    return _modern_request(request_id, "subscriptions/listen", params, client_info, capabilities)


def initialize(request_id: bytes, revision: str = NEWEST_LEGACY) -> Request:
    """For a session of the gateway's own, which cannot be asked anything."""
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": CLIENT_INFO}
    return Request(request_id, "initialize", _encode(params))


def ping(request_id: bytes) -> Request:
    return Request(request_id, "ping", b"")


def _modern_request(
    request_id: bytes, method: str, params: bytes, client_info: Mapping[str, Any], capabilities: Mapping[str, Any] | None
) -> Request:
    values = modern_params(params, client_info, capabilities or {}, None, None)
    return Request(request_id, method, _encode(values))
