"""What the backends and routes ask of every request of a client: how long it may take at most, and what it is hashed on. Pure."""

from __future__ import annotations

from mcp_gateway.config.settings import Settings

from .hash_keys import HashKeys


class RequestTerms:
    """One object for all handlers of a cell, which read it at each request: backends and routes change while they serve.

    timeout_s: the longest that any backend may take; the edge knows which one a request is for, and its own limit.
    """

    def __init__(self, settings: Settings) -> None:
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """These backends and routes run from now on."""
        timeouts_s = [backend.request_timeout for backend in settings.backends]
        self.timeout_s = max(settings.gateway.request_timeout, *timeouts_s, 0.0)
        self.hash_keys = HashKeys(settings)
