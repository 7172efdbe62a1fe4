"""Opaque tokens: what their issuer is asked about them, and what its answer means. Pure. Source: RFC 7662."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec

from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.ports.principal import Principal

from .claims import Audience, principal_of_claims
from .jwt_verification import fingerprint_of
from .rejection import CredentialRejected

HOLDS_S: Final = 30.0
"""An answer is believed for so long, and not beyond the token's end: how late a revocation may arrive. RFC 7662, section 4."""


class IntrospectionUnusable(Exception):
    """The answer says nothing about the token; the text says why."""


def introspection_form(token: bytes) -> dict[str, str]:
    """What is sent. The token is ASCII, or nobody's."""
    return {"token": token.decode("ascii", "replace"), "token_type_hint": "access_token"}


def introspection_headers(issuer: IssuerSettings, secret: str) -> dict[str, str]:
    """How the gateway shows who it is. Source: RFC 6749, section 2.3.1, which encodes both halves."""
    if not issuer.client_id:
        return {"Authorization": f"Bearer {secret}"} if secret else {}
    halves = f"{quote_plus(issuer.client_id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {base64.b64encode(halves.encode()).decode()}"}


def principal_of_answer(
    status: int, body: bytes, token: bytes, issuer: IssuerSettings, audience: Audience, now_s: float
) -> Principal:
    """Whom the issuer says the token stands for. now_s: since the epoch.

    Raises: CredentialRejected; IntrospectionUnusable.
    """
    if status != 200:
        raise IntrospectionUnusable(f"it answers with status {status}")
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise IntrospectionUnusable("its answer is not valid JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise IntrospectionUnusable("its answer does not say whether the token is active")
    if not answer["active"]:
        raise CredentialRejected("the token is not active")
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in ("bearer", "access_token"):
        raise CredentialRejected("the token is of another type")
    return principal_of_claims(_with_defaults(answer, issuer, now_s), issuer, audience, now_s, fingerprint_of(token))


def _with_defaults(answer: Mapping[str, Any], issuer: IssuerSettings, now_s: float) -> dict[str, Any]:
    """All but `active` may be missing. A token without a subject is the client's own: RFC 9068, section 2.2."""
    # It was issued before now, by whichever clock.
    defaults = {"iss": issuer.issuer, "exp": now_s + HOLDS_S, "iat": now_s - 2 * issuer.leeway}
    if issuer.subject_claim == "sub" and "client_id" in answer:
        defaults["sub"] = answer["client_id"]
    return {**defaults, **answer}
