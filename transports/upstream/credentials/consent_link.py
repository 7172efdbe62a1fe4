"""The link that a client is given where its user must consent: sealed, so that it asks for what it was made for only. Pure.

It names the principal that asked; whoever opens it is shown that, and what comes of it is that principal's.
Source: MCP 2025-11-25, client/elicitation, "Safe URL Handling" and "Phishing".
"""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_gateway.transports.protocol.sealed.sealing import Seal, SealBroken

_KIND: Final = "consent"
LINK_S: Final = 600.0
"""How long a link can be opened, and then again how long the authorization server may take."""


class ConsentWanted(msgspec.Struct, frozen=True, array_like=True):
    """scopes: what to ask for; () asks for what the server offers. resource_metadata: of its challenge. expires_ms: epoch."""

    backend: str
    principal: str
    scopes: tuple[str, ...]
    resource_metadata: str
    expires_ms: int


_decode = msgspec.msgpack.Decoder(ConsentWanted).decode


def sealed_link(seal: Seal, wanted: ConsentWanted) -> str:
    return seal.seal(_KIND, msgspec.msgpack.encode(wanted))


def read_link(seal: Seal, link: str, now_ms: int) -> ConsentWanted | None:
    """None where this gateway never gave it out, it was altered, or it is too old."""
    try:
        wanted = _decode(seal.open(_KIND, link))
    except (SealBroken, msgspec.DecodeError):
        return None
    return wanted if now_ms < wanted.expires_ms else None
