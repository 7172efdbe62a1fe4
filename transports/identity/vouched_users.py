"""Users whom somebody else has authenticated: a trusted proxy that names them in a header, or TLS by their certificate. Pure."""

from __future__ import annotations

from typing import Final

import attrs

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.ports.principal import Principal

from .jwt_verification import fingerprint_of
from .rejection import CredentialRejected
from .subject_names import SubjectNames

PROXY_ISSUER: Final = "proxy"
CERTIFICATE_ISSUER: Final = "certificate"
_LONGEST_NAME: Final = 1_000


def vouched_principal(credential: Credential, settings: AuthSettings) -> Principal:
    """The user by that name, where the settings believe whoever vouches. It brings no scopes; operators are those they name.

    Raises: CredentialRejected.
    """
    is_proxy = credential.kind is CredentialKind.PROXY
    if not (settings.user_header if is_proxy else settings.client_certificates):
        raise CredentialRejected("users are not known in this way")
    name = credential.value
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise CredentialRejected("the user's name is no name")
    user = Principal(
        issuer=PROXY_ISSUER if is_proxy else CERTIFICATE_ISSUER,
        subject=name,
        groups=frozenset(credential.groups) if is_proxy and settings.groups_header else frozenset(),
        expires_ms=credential.expires_ms,
        fingerprint=fingerprint_of(name.encode("utf-8", "surrogatepass")),
    )
    return with_operator_scope(user, settings)


def with_operator_scope(user: Principal, settings: AuthSettings) -> Principal:
    """The same user, with the scope of operators where the settings name it as one."""
    is_operator = bool(settings.operator_scope) and SubjectNames(settings.operators).has(user)
    return attrs.evolve(user, scopes=user.scopes | {settings.operator_scope}) if is_operator else user
