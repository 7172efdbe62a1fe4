"""Whom a request may be addressed to, and which pages of browsers may send it, by Host, Origin and Sec-Fetch. Pure."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from mcp_gateway.transports.protocol.mcp.refusals import Refused

_LOCALHOST: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{0,5}))?")
_ORIGIN: Final = re.compile(r"(https?)://([A-Za-z0-9._:\[\]-]+)", re.IGNORECASE)
_OTHER_SITES: Final = frozenset({"cross-site", "same-site"})
_CORS_HEADERS: Final = (
    "Content-Type, Accept, Authorization, Last-Event-ID, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name, "
    "Mcp-Tools, traceparent, tracestate, baggage"
)
_LONGEST_KEPT: Final = 255
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@attrs.frozen
class Authority:
    """Whom a URL or a request names. name: in lower case, without brackets and the dot of the root. port: "" for the default."""

    name: str
    port: str = ""
    is_address: bool = False

    @classmethod
    def read(cls, text: str) -> Authority | None:
        """None for what is no host with or without a port. What is nearly an address, such as 127.1, is a name."""
        return _read_short(text) if len(text) <= _LONGEST_KEPT else cls._read(text)

    @classmethod
    def _read(cls, text: str) -> Authority | None:
        if (found := _AUTHORITY.fullmatch(text)) is None:
            return None
        bracketed, name, port = found.groups()
        try:
            address = ipaddress.IPv6Address(bracketed) if bracketed else ipaddress.IPv4Address(name)
        except ValueError:
            return None if bracketed else cls(name.lower().removesuffix("."), port or "")
        return cls(str(address), port or "", is_address=True)

    @property
    def is_loopback(self) -> bool:
        """Whether it can be nobody's but this machine's. Source: RFC 6761, section 6.3: names below localhost are, too."""
        if self.is_address:
            return ipaddress.ip_address(self.name).is_loopback
        return self.name == "localhost" or self.name.endswith(".localhost")

    def is_same(self, other: Authority, scheme: str) -> bool:
        default = _DEFAULT_PORTS[scheme]
        return self.name == other.name and (self.port or default) == (other.port or default)


_read_short = functools.lru_cache(maxsize=256)(Authority._read)  # clients send the same few with every request


class OriginRules:
    """Judges the headers Host ("" where there is none), Origin (None likewise) and Sec-Fetch-* of requests."""

    def __init__(
        self,
        own_host: str,
        allowed_origins: Iterable[str],
        *,
        allowed_hosts: Iterable[str] = (),
        public_url: str = "",
        localhost_origins: bool = True,
    ) -> None:
        """Take the settings of `[gateway]`; own_host is its `host`."""
        self._allowed = frozenset(allowed_origins)
        self._takes_localhost = localhost_origins
        public = urlsplit(public_url)
        self._public = public.scheme, Authority.read(public.netloc)
        hosts = [own_host, public.hostname or "", *(urlsplit(origin).hostname or "" for origin in self._allowed)]
        known = [Authority.read(text) for text in (*hosts, *allowed_hosts)]
        self._known = {(each.name, each.port) for each in known if each is not None}

    def check(self, origin: str | None, host: str, public_host: str = "") -> None:
        """Refuse what a page of another site sends, or has sent to a name of its own that it has bound to the gateway's address.

        public_host: that which a trusted proxy was asked for. Host is checked beside it: behind DNS rebinding stands a browser of
        a machine that may be as trusted, and it says what its page wants.

        Raises: Refused with origin_forbidden.
        Source: MCP 2026-07-28, basic/transports/streamable-http "Security & Endpoint"; the check of Host is ours. An address
        cannot be bound anew, and only the owner of a name that is configured can.
        """
        for asked in (host, public_host):
            if asked and not self._is_own(Authority.read(asked)):
                text = (
                    f"host {asked[:200]!r} is no name of this gateway that it knows of; if clients reach it by this name, "
                    "put it into allowed_hosts or public_url of [gateway]"
                )
                raise Refused("origin_forbidden", text)
        if origin is not None and not self._is_allowed(origin, host, public_host):
            text = f"origin {origin[:200]!r} may not connect; a page that may has its origin in allowed_origins of [gateway]"
            raise Refused("origin_forbidden", text)

    def _is_own(self, asked: Authority | None) -> bool:
        if asked is None:
            return False
        ports = ("", asked.port) if asked.port else ("", *_DEFAULT_PORTS.values())
        return asked.is_address or asked.is_loopback or any((asked.name, port) in self._known for port in ports)

    def _is_allowed(self, origin: str, host: str, public_host: str) -> bool:
        if origin in self._allowed or self.is_own_page(origin, host, public_host):
            return True
        _, page = _read_origin(origin)
        if page is None:
            return False
        asked = _known_of(host, public_host)
        # Of whom a request reaches under another name than localhost, localhost may be a page on quite another machine.
        return self._takes_localhost and page.name in _LOCALHOST and bool(asked) and all(each.is_loopback for each in asked)

    def is_own_page(self, origin: str, host: str, public_host: str = "") -> bool:
        """Whether this is the origin of the gateway's own pages, as this request, which has been checked, has found it."""
        scheme, page = _read_origin(origin)
        if page is None:
            return False
        public_scheme, public = self._public
        if any(page.is_same(each, scheme) for each in _known_of(host, public_host)):
            return True
        return public is not None and scheme == public_scheme and page.is_same(public, scheme)

    def answer_headers(self, origin: str, host: str, public_host: str = "") -> Mapping[str, str]:
        """Headers that let a page of an allowed origin read the answer. Source: WHATWG Fetch, "CORS protocol"."""
        if not self._is_allowed(origin, host, public_host):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Vary": "Origin",
            "Access-Control-Expose-Headers": "Mcp-Session-Id, Retry-After, WWW-Authenticate",
        }


def _read_origin(origin: str) -> tuple[str, Authority | None]:
    """(scheme, whom it names); None for what is no origin of a page on the web."""
    found = _ORIGIN.fullmatch(origin)
    return ("", None) if found is None else (found[1].lower(), Authority.read(found[2]))


def _known_of(*hosts: str) -> list[Authority]:
    return [each for each in map(Authority.read, hosts) if each is not None]


def check_site(headers: Mapping[str, str], *, is_page: bool) -> None:
    """Refuse what a page of another site embeds: an image or a frame cannot be read, but opens streams and costs answers.

    Such requests carry no Origin; one that does has been judged by it. is_page: whether people come here by links.

    Raises: Refused with origin_forbidden.
    Source: W3C Fetch Metadata Request Headers; the "resource isolation policy" of web.dev.
    """
    if headers.get("Sec-Fetch-Site") not in _OTHER_SITES or "Origin" in headers:
        return
    if is_page and headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document":
        return
    raise Refused("origin_forbidden", "a page of another site may not ask for this; Sec-Fetch-Site tells that one has")


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
