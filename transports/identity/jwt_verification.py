"""Access tokens that are JWTs: taken apart, checked against the keys of their issuer, and made a principal. Pure.

Source: RFC 7515, 7519, 8725; RFC 9068 for access tokens. Nothing in a token's header says where a key comes from: `jwk`, `jku`,
`x5c` and `x5u` are passed over, `kid` chooses among the keys of the issuer that the token names and that is configured.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from mcp_gateway.config.identity_settings import ALGORITHMS, IssuerSettings
from mcp_gateway.transports.ports.principal import Principal

from .claims import Audience, principal_of_claims
from .jwks import SigningKey, keys_for
from .rejection import CredentialRejected, KeyUnknown

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

LONGEST_TOKEN: Final = 16_384

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_MARKED_ACCESS_TOKEN: Final = frozenset({"at+jwt", "application/at+jwt"})
_ACCESS_TOKEN: Final = _MARKED_ACCESS_TOKEN | {"jwt", "application/jwt"}
_OF_ID_TOKENS: Final = ("nonce", "at_hash")
_LONGEST_KEY_ID: Final = 500
_MOST_KEYS_TRIED: Final = 5
"""Of a token that names no key, while an issuer has several: the old one, the new one, and those to come."""


@attrs.frozen
class UnverifiedToken:
    """A token as it says of itself. fingerprint: of what is signed, because a signature can be written in more than one way."""

    header: dict[str, Any] = attrs.field(repr=False)
    claims: dict[str, Any] = attrs.field(repr=False)
    signed: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    fingerprint: str

    @property
    def issuer(self) -> str:
        """Who is said to have made it, or ""."""
        issuer = self.claims.get("iss")
        return issuer if isinstance(issuer, str) else ""


def fingerprint_of(value: bytes) -> str:
    """A name for a credential that does not give it away."""
    return hashlib.sha256(value).hexdigest()[:32]


def looks_like_jwt(token: bytes) -> bool:
    """Whether it has the form of a signed token; anything else is opaque."""
    return _COMPACT.fullmatch(token) is not None


def read_token(token: bytes) -> UnverifiedToken:
    """Take a token apart.

    Raises: CredentialRejected.
    """
    if len(token) > LONGEST_TOKEN:
        raise CredentialRejected(f"the token is longer than {LONGEST_TOKEN} bytes")
    if not looks_like_jwt(token):
        raise CredentialRejected("the token is no JWT")
    signed, _, signature = token.rpartition(b".")
    header, _, payload = signed.partition(b".")
    return UnverifiedToken(
        header=_object(_bytes(header, "header"), "header"),
        claims=_object(_bytes(payload, "payload"), "payload"),
        signed=signed,
        signature=_bytes(signature, "signature"),
        fingerprint=fingerprint_of(signed),
    )


def verify(
    token: UnverifiedToken, keys: Sequence[SigningKey], issuer: IssuerSettings, audience: Audience, now_s: float
) -> Principal:
    """Who the token is about. now_s: since the epoch.

    Raises: CredentialRejected; KeyUnknown where the issuer's keys may be older than the token.
    """
    check_signature(token, keys, issuer, _ACCESS_TOKEN)
    _refuse_id_token(token)
    return principal_of_claims(token.claims, issuer, audience, now_s, token.fingerprint)


def check_signature(token: UnverifiedToken, keys: Sequence[SigningKey], issuer: IssuerSettings, types: Container[str]) -> None:
    """Whether the issuer has signed it, as a token of one of these types (`typ`, in lower case; "jwt" where it says none).

    Raises: CredentialRejected; KeyUnknown where the issuer's keys may be older than the token.
    """
    algorithm, key_id = _checked_header(token.header, issuer, types)
    candidates = keys_for(tuple(keys), key_id, algorithm)[:_MOST_KEYS_TRIED]
    if not candidates:
        raise KeyUnknown("the token is of a key that the issuer does not name")
    if not any(_is_signed_by(token, algorithm, each.key) for each in candidates):
        # Without a name, the key may be new; with one, the name is known and the signature wrong.
        kind = KeyUnknown if key_id is None else CredentialRejected
        raise kind("the token's signature is not of its issuer")


def _checked_header(header: dict[str, Any], issuer: IssuerSettings, types: Container[str]) -> tuple[str, str | None]:
    """(algorithm, name of the key)"""
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in issuer.algorithms:
        raise CredentialRejected("the token is signed in a way that is not taken")
    if not isinstance(kind, str) or kind.lower() not in types:
        raise CredentialRejected("the token is of another type")
    if "crit" in header or header.get("b64", True) is not True:  # RFC 7515, section 4.1.11; RFC 7797, section 6
        raise CredentialRejected("the token wants something understood that is not known here")
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= _LONGEST_KEY_ID):
        raise CredentialRejected("the token's key has no proper name")
    return algorithm, key_id


@functools.cache
def _verifiers() -> dict[str, Algorithm]:
    """{algorithm: what checks its signatures}, loaded where there is one to check: that takes 4 MB."""
    from jwt.algorithms import get_default_algorithms

    known = get_default_algorithms()
    return {name: known[name] for name in ALGORITHMS}


def _refuse_id_token(token: UnverifiedToken) -> None:
    """An ID token tells a client who has logged in; its audience is that client, and fits where `audience` is the id of one.

    Source: RFC 9068, section 5, for the danger; OpenID Connect Core 1.0, sections 2 and 3.1.3.6, for the claims.

    Raises: CredentialRejected.
    """
    is_marked = str(token.header.get("typ", "")).lower() in _MARKED_ACCESS_TOKEN
    if not is_marked and any(claim in token.claims for claim in _OF_ID_TOKENS):
        raise CredentialRejected("the token is an ID token")


def _is_signed_by(token: UnverifiedToken, algorithm: str, key: Any) -> bool:
    from jwt.exceptions import PyJWTError

    try:
        return _verifiers()[algorithm].verify(token.signed, key, token.signature)
    except (PyJWTError, ValueError, TypeError):
        return False


def _bytes(segment: bytes, name: str) -> bytes:
    """Base64url without padding, in the one form that each value has: else a token could be shown in several (RFC 7515, 2)."""
    try:
        decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error:
        raise CredentialRejected(f"the token's {name} is not encoded as it should be") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise CredentialRejected(f"the token's {name} is not encoded as it should be")
    return decoded


def _object(document: bytes, name: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(document)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise CredentialRejected(f"the token's {name} is no JSON") from None
    if not isinstance(value, dict):
        raise CredentialRejected(f"the token's {name} is no object")
    return value
