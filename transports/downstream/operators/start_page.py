"""`GET /`: the addresses to copy, as a short page for a browser and as JSON for everybody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Final

import msgspec

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.downstream.server.accept import JSON, names, quality
from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.downstream.server.pages import HTML, page, page_headers
from mcp_gateway.transports.ports.principal import Principal

from .addresses import Address, addresses_to_copy

START_PATH: Final = "/"
_HTML: Final = "text/html"

_HEADERS: Final = {**page_headers(), "Vary": "Accept"}


class StartPageEndpoint:
    """Serves `GET /`. base_url: what addresses begin with, as clients write them.

    servers:   (name, title) of the backends and virtual servers that there are now and of which this client may use something.
    grpc_port: 0 where gRPC is not served.
    """

    def __init__(
        self,
        base_url: Callable[[Incoming], str],
        servers: Callable[[Principal | None], Iterable[tuple[str, str]]],
        grpc_port: int = 0,
    ) -> None:
        self._base_url = base_url
        self._servers = servers
        self._grpc_port = grpc_port

    def handle(self, incoming: Incoming) -> None:
        if incoming.method not in ("GET", "HEAD"):
            method_not_allowed(incoming, "GET")
            return
        found = addresses_to_copy(self._base_url(incoming), self._servers(incoming.principal), self._grpc_port)
        accept = incoming.headers.get("Accept", "")
        if names(accept, _HTML) and (quality(accept, _HTML) or 0) >= (quality(accept, JSON) or 0):
            incoming.respond(200, _page(found), _HEADERS, content_type=HTML)
        else:
            shown = [{"what": address.what, "url": address.url} for address in found]
            body = msgspec.json.encode({"name": "mcp-gateway", "version": VERSION, "addresses": shown})
            incoming.respond(200, body, _HEADERS)


def _page(addresses: Iterable[Address]) -> bytes:
    rows = (f"<tr><th>{escape(each.what)}</th><td><code>{escape(each.url)}</code></td></tr>" for each in addresses)
    body = "<p>This is an endpoint for clients of the Model Context Protocol. Copy one of these addresses into yours:</p>\n"
    table = "\n".join(rows)
    return page("mcp-gateway", f"{body}<table>\n{table}\n</table>", f"Version {escape(VERSION)}")
