"""Whose request it is, where proxies that the settings trust say so. Pure.

Source: RFC 7239 for `Forwarded`; the `X-Forwarded-*` headers are custom, read as nginx and Envoy write them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~%!$&'()*+,;=:@-]+)+")
_PAIR: Final = re.compile(r'\s*([A-Za-z]+)=(?:"([^"\\]*)"|([^\s;,"]*))\s*')

_TOLD_BY_PROXIES: Final = ("Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via")

_SUBSCRIBER_BITS: Final = 64
"""What one subscriber of IPv6 has at least, and may take any address of. Source: RFC 6177, section 2; RFC 4291, section 2.5.1."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.frozen
class Origin:
    """Where a request comes from, and what the client asked for.

    address: the client's: of the first hop, seen from here, that is no trusted proxy.
    scheme, host, prefix: of the address that the client wrote, as far as trusted proxies tell; "" where they do not.
    """

    address: str
    scheme: str = ""
    host: str = ""
    prefix: str = ""

    @property
    def network(self) -> str:
        return network_of(self.address)


class TrustedProxies:
    """trusted: addresses and networks of proxies, "10.0.0.0/8"."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(each) for each in trusted]

    def are_at(self, peer: str) -> bool:
        """Whether a trusted proxy has this address."""
        return bool(self._networks) and self._is_trusted(_address(peer))

    def origin(self, peer: str, headers: Mapping[str, str]) -> Origin:
        """headers: as in `Incoming`. Whatever a peer says that is no trusted proxy counts for nothing."""
        if not self.are_at(peer):
            return Origin(peer)
        listed = _values(headers, "X-Forwarded-For")
        elements = [_pairs(each) for each in _values(headers, "Forwarded")]
        named = [element.get("for", "") for element in elements]
        client, passed = self._client(peer, listed or named)
        if listed and named and self._client(peer, named)[0] != client:
            return Origin(peer)  # a proxy writes one of the two and passes on the other, which may be forged
        scheme = _at(_values(headers, "X-Forwarded-Proto") or [each.get("proto", "") for each in elements], passed).lower()
        host = _at(_values(headers, "X-Forwarded-Host") or [each.get("host", "") for each in elements], passed)
        prefix = _at(_values(headers, "X-Forwarded-Prefix"), passed).rstrip("/")
        return Origin(
            client,
            scheme if scheme in ("http", "https") else "",
            host if _AUTHORITY.fullmatch(host) else "",
            prefix if _PREFIX.fullmatch(prefix) else "",
        )

    def is_of_this_machine(self, peer: str, headers: Mapping[str, str]) -> bool:
        """Whether the client surely runs here: what a proxy hands on that is not trusted may come from anywhere."""
        if not self.are_at(peer) and any(name in headers for name in _TOLD_BY_PROXIES):
            return False
        address = _address(self.origin(peer, headers).address)
        return address is not None and address.is_loopback

    def _client(self, peer: str, hops: list[str]) -> tuple[str, int]:
        """The client's address, and how many trusted proxies its request has passed. hops: farthest first."""
        client, passed = peer, 1
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:  # "unknown", or a name of the proxy's own: nobody knows what was before it
                break
            client = str(address)
            if not self._is_trusted(address):
                break
            passed += 1
        return client, passed

    def _is_trusted(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


@functools.lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Whose shares and limits count for an address: its own, but of IPv6 those of its subscriber, who has 2^64 of them.

    Link-local addresses are those of neighbours, all within one such network.
    """
    found = _address(address) if ":" in address else None
    if not isinstance(found, ipaddress.IPv6Address):
        return address if found is None else str(found)
    if found.is_link_local or found.is_loopback:
        return address
    return str(ipaddress.IPv6Network((int(found), _SUBSCRIBER_BITS), strict=False))


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    text = headers.get(name, "")
    return [each.strip() for each in text.split(",")] if text else []


def _at(values: list[str], passed: int) -> str:
    """What the farthest trusted proxy has put there; one that replaces what it finds leaves a single value."""
    return values[-min(passed, len(values))] if values else ""


def _pairs(element: str) -> dict[str, str]:
    """One hop of `Forwarded`; what is not well formed says nothing."""
    found = [_PAIR.fullmatch(each) for each in element.split(";")]
    return {each[1].lower(): each[2] if each[2] is not None else each[3] for each in found if each is not None}


def _address(text: str) -> Address | None:
    """An address without its port, or None; IPv4 in the clothes of IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if mapped is not None else address
