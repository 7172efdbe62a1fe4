"""What a page shows beside what its browser shows by itself, before something is done in an operator's name. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from .sealing import Seal, SealBroken

_KIND = "operator action"


class _Proof(msgspec.Struct, frozen=True, array_like=True):
    """holder: hash of what it belongs to. expires_ms: since the epoch."""

    holder: bytes
    expires_ms: int


_decode = msgspec.msgpack.Decoder(_Proof).decode


def proof_for(seal: Seal, holder: str, expires_ms: int) -> str:
    """A token that only who reads our answers can have. holder: what it is good with, such as a cookie, and with nothing else.

    Source: OWASP, "Cross-Site Request Forgery Prevention", signed double-submit cookie, bound to the session.
    """
    return seal.seal(_KIND, msgspec.msgpack.encode(_Proof(_hash(holder), expires_ms)))


def is_proof(seal: Seal, shown: str, holder: str, now_ms: int) -> bool:
    """Whether this gateway gave it to that holder, and it is not over."""
    try:
        proof = _decode(seal.open(_KIND, shown))
    except (SealBroken, msgspec.DecodeError):
        return False
    return proof.holder == _hash(holder) and now_ms < proof.expires_ms


def _hash(holder: str) -> bytes:
    return hashlib.sha256(holder.encode()).digest()
