"""Which pages of browsers may reach the gateway, by Origin and Host, and what they are told of it. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from mcp_gateway.transports.protocol.mcp.refusals import Refused

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CORS_HEADERS: Final = (
    "Content-Type, Accept, Authorization, Last-Event-ID, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name, "
    "traceparent, tracestate, baggage"
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class OriginRules:
    """Judges the headers Origin (None where there is none) and Host ("" likewise) of requests.

    own_host:        the address that the gateway listens on.
    allowed_origins: pages beside those of this machine and of the gateway's own name, as "https://app.example".
    """

    def __init__(self, own_host: str, allowed_origins: Iterable[str]) -> None:
        self._is_loopback = _is_loopback(own_host)
        self._allowed = frozenset(allowed_origins)
        self._hosts = _LOOPBACK_NAMES | {own_host} | {urlsplit(origin).hostname or "" for origin in self._allowed}

    def check(self, origin: str | None, host: str, public_host: str = "") -> None:
        """A page of another site must not reach a gateway on this machine.

        public_host: that which a trusted proxy was asked for. Host itself is checked all the same: behind DNS rebinding stands a
        browser of this machine, which may be as trusted and says what its page wants.

        Raises: Refused with origin_forbidden.
        Source: MCP 2026-07-28, basic/transports/streamable-http "Security & Endpoint"; the Host check is ours, for DNS rebinding.
        """
        if origin is not None and not self._is_allowed(origin, host, public_host):
            raise Refused("origin_forbidden", f"origin {origin[:200]!r} may not connect")
        if self._is_loopback and host and _host_name(host) not in self._hosts:
            raise Refused("origin_forbidden", f"host {host[:200]!r} is not this gateway")

    def _is_allowed(self, origin: str, host: str, public_host: str) -> bool:
        if origin in self._allowed:
            return True
        try:
            parts = urlsplit(origin)
            name = parts.hostname
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and (
            name in _LOOPBACK_NAMES or (bool(parts.netloc) and parts.netloc in (host, public_host))
        )

    def answer_headers(self, origin: str, host: str, public_host: str = "") -> Mapping[str, str]:
        """Headers that let a page of an allowed origin read the answer. Source: WHATWG Fetch, "CORS protocol"."""
        if not self._is_allowed(origin, host, public_host):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Vary": "Origin",
            "Access-Control-Expose-Headers": "Mcp-Session-Id, Retry-After",
        }


def preflight_headers(asked: str) -> Mapping[str, str]:
    """What a page may send. asked: the names in Access-Control-Request-Headers.

    Some headers are named after parameters of tools, or by routes and limits, so nobody can list them; and only pages of allowed
    origins come here. Source: MCP 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters".
    """
    names = [name for each in asked.split(",") if _HEADER_NAME.fullmatch(name := each.strip())]
    return {
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": ", ".join([_CORS_HEADERS, *names]),
        "Access-Control-Max-Age": "600",
    }


def _host_name(host: str) -> str:
    """The name in a Host header, without the port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
