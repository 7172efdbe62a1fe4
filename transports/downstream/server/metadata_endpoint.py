"""`GET /.well-known/oauth-protected-resource` and, with its path behind, of each resource: where clients log in."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

from .gate import Gate
from .incoming import Incoming, method_not_allowed
from .protected_resource import WELL_KNOWN, metadata
from .server import GatewayServer

METADATA_PATHS: Final = (WELL_KNOWN, f"{WELL_KNOWN}/…")


class MetadataEndpoint:
    """Serves them; whoever may be asked to log in may read where."""

    def __init__(self, server: GatewayServer, gate: Gate) -> None:
        self._server = server
        self._gate = gate

    def handle(self, incoming: Incoming) -> None:
        if incoming.method not in ("GET", "HEAD"):
            method_not_allowed(incoming, "GET")
            return
        base = self._server.base_url(incoming)
        prefix = urlsplit(base).path  # of a proxy before the gateway: clients put what is well known before it, not behind
        path = incoming.path.removeprefix(WELL_KNOWN)
        if path == prefix or path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        found = metadata(base, path, self._gate.auth, asks_for_certificates=self._server.asks_for_certificates)
        if found is None:
            incoming.respond(404, msgspec.json.encode({"error": "no such resource"}), {})
        else:
            incoming.respond(200, msgspec.json.encode(found), {"Cache-Control": "no-store"})
