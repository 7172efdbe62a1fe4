"""What people are told to copy."""

from __future__ import annotations

from mcp_gateway.transports.downstream.operators.addresses import address_lines, addresses_to_copy


def test_each_transport_and_each_backend_has_an_address() -> None:
    assert address_lines(addresses_to_copy("https://h/tools", [("files", ""), ("notes", "My Notes")])) == [
        "  Streamable HTTP  https://h/tools/mcp",
        "  HTTP+SSE         https://h/tools/sse",
        "  WebSocket        wss://h/tools/mcp/ws",
        "  files alone      https://h/tools/mcp/servers/files",
        "  My Notes alone   https://h/tools/mcp/servers/notes",
        "  dashboard        https://h/tools/metrics/dashboard",
    ]
