"""An interface of MCP Apps for servers of the official SDK.

Source: MCP Apps (ext-apps) 2026-01-26, "UI Resource Format", "Resource Discovery", "Capability Negotiation".
"""

from typing import Any

from mcp.client.extension import ClientExtension
from mcp.server.mcpserver import MCPServer
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

EXTENSION = "io.modelcontextprotocol/ui"
MIME_TYPE = "text/html;profile=mcp-app"
VIEW = "ui://everything/board.html"
PAGE = "<!doctype html><title>Board</title>"

Json = dict[str, Any]


class ShowsInterfaces(ClientExtension):
    """What a client of the SDK declares that can show them."""

    identifier = EXTENSION

    def settings(self) -> Json:
        return {"mimeTypes": [MIME_TYPE]}


async def serve_apps(ctx: Any, call_next: Any) -> Any:
    """A middleware of the SDK's server: a tool `board`, whose interface is no listed resource, and lets all else pass.

    Called, it says whether its client can show interfaces.
    """
    params: Json = dict(ctx.params or {})
    is_modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    complete: Json = {"resultType": "complete"} if is_modern else {}
    if ctx.method == "resources/read" and str(params.get("uri")) == VIEW:
        kept: Json = {"ttlMs": 0, "cacheScope": "private"} if is_modern else {}
        return {"contents": [{"uri": VIEW, "mimeType": MIME_TYPE, "text": PAGE}], **complete, **kept}
    if ctx.method == "tools/call" and params.get("name") == "board":
        capabilities = ctx.session.client_capabilities
        declared = ((capabilities.extensions if capabilities else None) or {}).get(EXTENSION)
        text = "shown" if declared == ShowsInterfaces().settings() else f"not shown: {declared}"
        return {"content": [{"type": "text", "text": text}], **complete}
    result = await call_next(ctx)
    if not isinstance(result, dict):
        return result
    if ctx.method in ("initialize", "server/discover"):
        capabilities = result["capabilities"]
        announced = {**(capabilities.get("extensions") or {}), EXTENSION: {}}
        return {**result, "capabilities": {**capabilities, "extensions": announced}}
    if ctx.method == "tools/list" and not result.get("nextCursor"):
        board = {"name": "board", "inputSchema": {"type": "object"}, "_meta": {"ui": {"resourceUri": VIEW}}}
        return {**result, "tools": [*result["tools"], board]}
    return result


def add_apps(server: MCPServer[Any]) -> None:
    """Give the server a tool with an interface."""
    server._lowlevel_server.middleware.append(serve_apps)
