"""What an issuer says of a subject, as a token or an introspection response holds it: checked, and made a principal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeGuard

import attrs

from mcp_gateway.config.identity_settings import LOG_OUTS_KEPT_S, IssuerSettings
from mcp_gateway.transports.ports.principal import FOREVER_MS, Principal

from .rejection import CredentialRejected

_THUMBPRINT: Final = "x5t#S256"
_LONGEST_NAME: Final = 1_000
_MOST_NAMES: Final = 1_000


@attrs.frozen
class Audience:
    """For whom a token must be made out.

    named:  one of these, to the letter.
    family: or an address of ours: this one, or one below its `/mcp`; "" for none.

    Source: RFC 8707, section 2: a token for one server is good there only; `/mcp` is all of them as one.
    """

    named: tuple[str, ...]
    family: str

    def has(self, audience: str) -> bool:
        base = self.family.rstrip("/")
        if audience in self.named or not base:
            return audience in self.named
        is_below = audience.startswith(f"{base}/mcp/") and audience != f"{base}/mcp/servers/"
        return is_below or audience in (base, f"{base}/", f"{base}/mcp")

    def servers_of(self, audiences: Iterable[str]) -> frozenset[str] | None:
        """The servers that a token with these audiences is for, () for all; None where it is for somebody else."""
        ours = [each for each in audiences if self.has(each)]
        servers = frozenset(self._server(each) for each in ours)
        return None if not ours else frozenset() if "" in servers else servers

    def _server(self, audience: str) -> str:
        """Of an address of one server its name; "" of all others of ours."""
        if audience in self.named:
            return ""
        below = audience.removeprefix(f"{self.family.rstrip('/')}/mcp/servers/")
        return "" if below == audience else below.partition("/")[0]


def audience_of(issuer: IssuerSettings, public_url: str) -> Audience:
    """What is configured, or else the gateway's own address."""
    return Audience(issuer.audience, "" if issuer.audience else public_url)


def principal_of_claims(
    claims: Mapping[str, Any], issuer: IssuerSettings, audience: Audience, now_s: float, fingerprint: str
) -> Principal:
    """Who the claims are about. now_s: since the epoch.

    Raises: CredentialRejected. Source: RFC 7519, section 4.1; RFC 9068, section 4; RFC 8725, sections 3.8 to 3.10.
    """
    if claims.get("iss") != issuer.issuer:
        raise CredentialRejected("the token is of another issuer")
    if "events" in claims:  # a message about a subject, such as a logout token. Source: RFC 8417, sections 2.2 and 4.5
        raise CredentialRejected("the token is of another type")
    bound_to = _bound_to(claims["cnf"]) if "cnf" in claims else ""
    servers = audience.servers_of(names_in(claims.get("aud"), "aud"))
    if servers is None:
        raise CredentialRejected("the token is not made out to this gateway")
    end_s = moment_of(claims.get("exp"), "exp") + issuer.leeway
    issued_s = moment_of(claims["iat"], "iat") if "iat" in claims else 0.0
    if issuer.logout_audience:
        end_s = min(end_s, issued_s + LOG_OUTS_KEPT_S)
    if now_s >= end_s:
        raise CredentialRejected("the token has expired")
    if "nbf" in claims and now_s < moment_of(claims["nbf"], "nbf") - issuer.leeway:
        raise CredentialRejected("the token is not valid yet")
    subject = claim_of(claims, issuer.subject_claim)
    if not is_name(subject):
        raise CredentialRejected("the token has no subject")
    client = claims.get("client_id", claims.get("azp", ""))
    if client != "" and not is_name(client):
        raise CredentialRejected("the token's client is no name")
    return Principal(
        issuer=issuer.issuer,
        subject=subject,
        client=client,
        groups=frozenset(names_in(claim_of(claims, issuer.groups_claim), issuer.groups_claim)),
        scopes=frozenset(_scopes(claim_of(claims, issuer.scope_claim), issuer.scope_claim)),
        servers=servers,
        expires_ms=int(min(end_s * 1000, FOREVER_MS)),
        fingerprint=fingerprint,
        bound_to=bound_to,
        session=session if is_name(session := claims.get("sid")) else "",
        issued_ms=int(issued_s * 1000),
    )


def _bound_to(confirmation: object) -> str:
    """The thumbprint of the certificate that a token is bound to. Whoever does not check how one is bound must not take it: a
    known gap are those that are bound to a key (RFC 9449).

    Source: RFC 7800, section 3.1; RFC 8705, section 3.1.
    """
    if isinstance(confirmation, dict) and confirmation.keys() == {_THUMBPRINT} and is_name(confirmation[_THUMBPRINT]):
        return str(confirmation[_THUMBPRINT])
    raise CredentialRejected("the token is bound to a key, which cannot be checked here")


def claim_of(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, or by a path into objects. Names with dots exist: Auth0 wants URLs for those it does not know."""
    if name in claims:
        return claims[name]
    found: object = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def names_in(value: object, claim: str) -> tuple[str, ...]:
    """One name, or a list of them. A value that is neither might have said that something is forbidden: it is not passed over."""
    if value is None:
        return ()
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > _MOST_NAMES or not all(isinstance(name, str) for name in names):
        raise CredentialRejected(f"{claim} in the token is no list of names")
    return tuple(names)


def _scopes(value: object, claim: str) -> tuple[str, ...]:
    """Separated by spaces (RFC 9068, section 2.2.3), or a list, as Okta and others have it."""
    return tuple(value.split()) if isinstance(value, str) else names_in(value, claim)


def moment_of(value: object, claim: str) -> float:
    """Seconds since the epoch. Raises: CredentialRejected."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -FOREVER_MS < value < FOREVER_MS:  # NaN is not
        raise CredentialRejected(f"{claim} in the token is no moment")
    return float(value)


def is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()
