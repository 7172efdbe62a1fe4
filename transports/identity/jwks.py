"""The keys of an issuer: which of a key set may check a token, and when to ask for the set again. Pure.

Source: RFC 7517; which key for which algorithm: RFC 7518, section 3, RFC 8037, section 3.1, RFC 8725, sections 3.1 and 3.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

_MOST_KEYS: Final = 100
_LONGEST_KEY_ID: Final = 500
_SMALLEST_RSA_BITS: Final = 2_048  # RFC 7518, section 3.3
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE: Final = {
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}

FRESH_S: Final = 600.0
"""A set is asked for again after so long; ours: a key that an issuer takes back stops working soon, and Auth0 says the same."""

FLOOR_S: Final = 10.0
"""Tokens of unknown keys, which anybody can make, lead to one request to the issuer in this time."""


class KeysUnusable(Exception):
    """What an issuer gave as its keys holds none that can be used; the text says why."""


@attrs.frozen
class SigningKey:
    """algorithms: what it may check and nothing else, so that a token cannot choose how its key is used."""

    key_id: str | None
    algorithms: tuple[str, ...]
    key: Any = attrs.field(repr=False)


def read_keys(document: bytes) -> tuple[SigningKey, ...]:
    """Those keys of a JWK Set that check signatures of asymmetric algorithms; others are passed over.

    Raises: KeysUnusable.
    """
    try:
        jwks = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError):
        raise KeysUnusable("they are not valid JSON") from None
    members = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(members, list):
        raise KeysUnusable("they are no JWK Set")
    keys = tuple(key for member in members[:_MOST_KEYS] if (key := _signing_key(member)) is not None)
    if not keys:
        raise KeysUnusable("there is none among them that checks signatures")
    return keys


def _signing_key(jwk: object) -> SigningKey | None:
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if "d" in jwk or "k" in jwk:  # a private key that lies about signs for everybody
        return None
    key_id = jwk.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= _LONGEST_KEY_ID):
        return None
    possible = _algorithms_for(jwk)
    algorithms = tuple(each for each in possible if each == jwk.get("alg", each))
    if not algorithms:
        return None
    from jwt import PyJWK  # 4 MB, which a gateway without issuers need not load
    from jwt.exceptions import PyJWTError

    try:
        key = PyJWK(jwk, algorithms[0]).key
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    if possible is _RSA and key.key_size < _SMALLEST_RSA_BITS:
        return None
    return SigningKey(key_id, algorithms, key)


def _algorithms_for(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    kind, curve = jwk.get("kty"), jwk.get("crv")
    if kind == "RSA":
        return _RSA
    return _BY_CURVE.get((kind, curve), ()) if isinstance(kind, str) and isinstance(curve, str) else ()


def keys_for(keys: tuple[SigningKey, ...], key_id: str | None, algorithm: str) -> tuple[SigningKey, ...]:
    """Which keys may have made a token. One that names none may be of any; a key without a name may have made any."""
    return tuple(
        key for key in keys if algorithm in key.algorithms and (key_id is None or key.key_id is None or key.key_id == key_id)
    )


@attrs.define
class KeptKeys:
    """The keys of one issuer as they were last given, and when it is time to ask again. An issuer that is away keeps its keys.

    asked_s: when the last request began; on whatever clock the caller has.
    """

    keys: tuple[SigningKey, ...] = ()
    _fresh_until_s: float = float("-inf")
    _asked_s: float = float("-inf")

    def wants_refresh(self, now_s: float) -> bool:
        """Whether a request is due: there are no keys, or they are old; at most one in FLOOR_S."""
        return now_s >= self._fresh_until_s and self.may_refresh(now_s)

    def may_refresh(self, now_s: float) -> bool:
        """Whether a token of an unknown key may lead to a request."""
        return now_s >= self._asked_s + FLOOR_S

    def asked(self, now_s: float) -> None:
        """A request begins."""
        self._asked_s = now_s

    def given(self, keys: tuple[SigningKey, ...], now_s: float) -> None:
        """The issuer has answered."""
        self.keys, self._fresh_until_s = keys, now_s + FRESH_S
