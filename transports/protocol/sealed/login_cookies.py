"""What a browser holds of an operator that has logged in: what was shown, sealed, so that it is no credential elsewhere. Pure."""

from __future__ import annotations

import msgspec

from .sealing import Seal, SealBroken

_KIND = "operator login"


class Login(msgspec.Struct, frozen=True, array_like=True):
    """credential: as it was typed in. expires_ms: since the epoch; it may end earlier by itself."""

    credential: str
    expires_ms: int

    def __repr__(self) -> str:
        return "Login(…)"


_decode = msgspec.msgpack.Decoder(Login).decode


def sealed_login(seal: Seal, login: Login) -> str:
    return seal.seal(_KIND, msgspec.msgpack.encode(login))


def read_login(seal: Seal, shown: str, now_ms: int) -> Login | None:
    """None for what this gateway never sealed, and for what is over."""
    try:
        login = _decode(seal.open(_KIND, shown))
    except (SealBroken, msgspec.DecodeError):
        return None
    return login if now_ms < login.expires_ms else None
