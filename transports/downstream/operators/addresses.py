"""The addresses that people copy into their clients. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import attrs


@attrs.frozen
class Address:
    """what: the transport, or the server, that is found at the URL; in words that may come from a file of the user."""

    what: str
    url: str


def addresses_to_copy(base: str, backends: Iterable[tuple[str, str]] = ()) -> list[Address]:
    """Where clients connect, and where people look, of a gateway at this base ("http://127.0.0.1:4000").

    backends: (name, title) of those that have an address of their own to be shown.
    """
    return [
        Address("Streamable HTTP", f"{base}/mcp"),
        Address("HTTP+SSE", f"{base}/sse"),
        Address("WebSocket", f"ws{base.removeprefix('http')}/mcp/ws"),
        *(Address(f"{title or name} alone", f"{base}/mcp/servers/{name}") for name, title in backends),
        Address("dashboard", f"{base}/metrics/dashboard"),
    ]


def address_lines(addresses: Iterable[Address]) -> list[str]:
    """One line each, the URLs one below the other."""
    shown = list(addresses)
    width = max((len(address.what) for address in shown), default=0)
    return [f"  {address.what.ljust(width)}  {address.url}" for address in shown]
