"""Logout tokens: an issuer's word that it has logged somebody out, checked. Pure.

Source: OpenID Connect Back-Channel Logout 1.0, sections 2.4 and 2.6; RFC 8417, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mcp_gateway.config.identity_settings import IssuerSettings, LogOut

from .claims import claim_of, is_name, moment_of, names_in
from .jwks import SigningKey
from .jwt_verification import UnverifiedToken, check_signature
from .rejection import CredentialRejected

BELIEVED_S: Final = 300.0
"""How old it may be; section 2.4 wants two minutes at most, and clocks and queues differ."""

_TYPES: Final = frozenset({"logout+jwt", "application/logout+jwt", "jwt", "application/jwt"})
_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


def read_log_out(token: UnverifiedToken, keys: Sequence[SigningKey], issuer: IssuerSettings, now_s: float) -> LogOut:
    """Who has been logged out. now_s: since the epoch.

    Raises: CredentialRejected; KeyUnknown where the issuer's keys may be older than the token.
    """
    if not issuer.logout_audience:
        raise CredentialRejected("logout tokens of this issuer are not taken")
    check_signature(token, keys, issuer, _TYPES)
    claims = token.claims
    if claims.get("iss") != issuer.issuer:
        raise CredentialRejected("the token is of another issuer")
    if issuer.logout_audience not in names_in(claims.get("aud"), "aud"):
        raise CredentialRejected("the token is not made out to this gateway")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_EVENT), dict):
        raise CredentialRejected("the token tells of no logout")
    if "nonce" in claims:  # an ID token has one: none of those must pass for this
        raise CredentialRejected("the token is of another type")
    issued_s = _issued_s(claims, issuer, now_s)
    if not is_name(token_id := claims.get("jti")):
        raise CredentialRejected("the token has no name of its own")
    subject, session = claim_of(claims, issuer.subject_claim), claims.get("sid")
    if not is_name(subject) and not is_name(session):
        raise CredentialRejected("the token names neither a subject nor a session")
    return LogOut(
        issuer=issuer.issuer,
        subject=subject if is_name(subject) else "",
        session=session if is_name(session) else "",
        issued_ms=int(issued_s * 1000),
        token_id=token_id,
    )


def _issued_s(claims: dict[str, Any], issuer: IssuerSettings, now_s: float) -> float:
    issued_s = moment_of(claims.get("iat"), "iat")
    if not now_s - BELIEVED_S - issuer.leeway < issued_s <= now_s + issuer.leeway:
        raise CredentialRejected("the token is not of now")
    if "exp" in claims and now_s >= moment_of(claims["exp"], "exp") + issuer.leeway:
        raise CredentialRejected("the token has expired")
    return issued_s
