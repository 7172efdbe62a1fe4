"""The addresses that people copy into their clients. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs


@attrs.frozen
class Address:
    """what: the transport, or the server, that is found at the URL; in words that may come from a file of the user.

    url: of gRPC the host:port that its clients take.
    """

    what: str
    url: str


def addresses_to_copy(base: str, servers: Iterable[tuple[str, str]] = (), grpc_port: int = 0) -> list[Address]:
    """Where clients connect, and where people look, of a gateway at this base ("http://127.0.0.1:4000").

    servers: (name, title) of the backends and virtual servers whose own addresses are to be shown.
    """
    host = urlsplit(base).hostname or ""
    grpc = [Address("gRPC", f"{f'[{host}]' if ':' in host else host}:{grpc_port}")] if grpc_port else []
    return [
        Address("Streamable HTTP", f"{base}/mcp"),
        Address("HTTP+SSE", f"{base}/sse"),
        Address("WebSocket", f"ws{base.removeprefix('http')}/mcp/ws"),
        *grpc,
        *(Address(f"{title or name} alone", f"{base}/mcp/servers/{name}") for name, title in servers),
        Address("dashboard", f"{base}/metrics/dashboard"),
    ]


def address_lines(addresses: Iterable[Address]) -> list[str]:
    """One line each, the URLs one below the other."""
    shown = list(addresses)
    width = max((len(address.what) for address in shown), default=0)
    return [f"  {address.what.ljust(width)}  {address.url}" for address in shown]
