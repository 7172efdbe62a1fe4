"""`GET /`: the addresses to copy, as a short page for a browser and as JSON for everybody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from typing import Final

import msgspec

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.downstream.server.accept import JSON, names, quality
from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.ports.principal import Principal

from .addresses import Address, addresses_to_copy

START_PATH: Final = "/"
_HTML: Final = "text/html"

# The style is in the page, and there is nothing else that it needs.
_SECURITY: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>mcp-gateway</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 52rem; margin: 3rem auto; padding: 0 1rem; }}
th, td {{ text-align: left; padding: .3rem 1.5rem .3rem 0; vertical-align: top; overflow-wrap: anywhere; }}
th {{ font-weight: 600; }}
code {{ font: .95rem ui-monospace, monospace; user-select: all; }}
footer {{ margin-top: 2rem; opacity: .75; }}
</style>
</head>
<body>
<main>
<h1>mcp-gateway</h1>
<p>This is an endpoint for clients of the Model Context Protocol. Copy one of these addresses into yours:</p>
<table>
{rows}
</table>
</main>
<footer>Version {version}</footer>
</body>
</html>
"""


class StartPageEndpoint:
    """Serves `GET /`. base_url: what addresses begin with, as clients write them.

    backends: those that run now and of which this client may use something.
    """

    def __init__(
        self, base_url: Callable[[Incoming], str], backends: Callable[[Principal | None], Iterable[BackendSettings]]
    ) -> None:
        self._base_url = base_url
        self._backends = backends

    def handle(self, incoming: Incoming) -> None:
        if incoming.method not in ("GET", "HEAD"):
            method_not_allowed(incoming, "GET")
            return
        backends = self._backends(incoming.principal)
        found = addresses_to_copy(self._base_url(incoming), ((backend.name, backend.title) for backend in backends))
        accept = incoming.headers.get("Accept", "")
        if names(accept, _HTML) and (quality(accept, _HTML) or 0) >= (quality(accept, JSON) or 0):
            incoming.respond(200, _page(found), _SECURITY, content_type="text/html; charset=utf-8")
        else:
            shown = [{"what": address.what, "url": address.url} for address in found]
            body = msgspec.json.encode({"name": "mcp-gateway", "version": VERSION, "addresses": shown})
            incoming.respond(200, body, _SECURITY)


def _page(addresses: Iterable[Address]) -> bytes:
    rows = (f"<tr><th>{escape(each.what)}</th><td><code>{escape(each.url)}</code></td></tr>" for each in addresses)
    return _PAGE.format(rows="\n".join(rows), version=escape(VERSION)).encode()
