"""Which addresses are on the public internet, so that a stranger's URL does not lead into the own network. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1


def is_public(address: str) -> bool:
    """Whether an IP address leads to the public internet, also by the IPv4 address that an IPv6 one carries.

    False for what is no address. Source: the registries of RFC 6890; forms that carry IPv4: RFC 4291, 2.5.5; 3056; 4380; 6052.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return all(map(_is_global, _meanings(parsed)))


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Site-local addresses are no more, and own networks may have kept them: RFC 3879."""
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not address.is_multicast and not address.is_reserved and not is_site_local


def _meanings(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Each address that a packet to this one may reach."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)]
    carried = [address.sixtofour, *(address.teredo or ())]
    return [address, *(each for each in carried if each is not None)]
