"""Tickets for what a browser opens without headers of its own: short-lived, used once, sealed. Pure.

Source: ours; RFC 6750, section 2.3, forbids nothing of the kind, and names why a token must not be in an address.
"""

from __future__ import annotations

import msgspec

from .sealing import Seal, SealBroken

_KIND = "ticket"


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a sealed ticket holds: nothing of whom it is for.

    cell: that has given it out, and knows. expires_ms: since the epoch.
    """

    cell: str
    key: str
    expires_ms: int


_decode = msgspec.msgpack.Decoder(Ticket).decode


def sealed_ticket(seal: Seal, ticket: Ticket) -> str:
    return seal.seal(_KIND, msgspec.msgpack.encode(ticket))


def read_ticket(seal: Seal, shown: str) -> Ticket | None:
    """What a client has brought, or None for one that this gateway never sealed: of that no other cell need be asked."""
    try:
        return _decode(seal.open(_KIND, shown))
    except (SealBroken, msgspec.DecodeError):
        return None
