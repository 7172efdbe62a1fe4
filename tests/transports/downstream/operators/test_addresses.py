"""What people are told to copy."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize(
    ("base", "target"),
    [("https://h/tools", "h:50052"), ("http://127.0.0.1:4000", "127.0.0.1:50052"), ("http://[::1]:4000", "[::1]:50052")],
)
def test_clients_of_grpc_are_told_a_host_and_a_port(base: str, target: str) -> None:
    assert [each.url for each in addresses_to_copy(base, grpc_port=50052) if each.what == "gRPC"] == [target]
    assert "gRPC" not in [each.what for each in addresses_to_copy(base)]
