"""Whether what a principal has shown still counts after a change of the settings. Pure."""

from __future__ import annotations

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.transports.ports.principal import Principal

from .api_keys import API_KEY_ISSUER
from .vouched_users import CERTIFICATE_ISSUER, PROXY_ISSUER


def still_holds(principal: Principal, settings: AuthSettings) -> bool:
    """Whether the principal would be known again, and with the same rights, as far as the settings say.

    An API key is recognised by its fingerprint, which is the beginning of its hash.
    """
    if principal.issuer == API_KEY_ISSUER:
        return any(
            key.name == principal.subject
            and key.hash.removeprefix("sha256:").startswith(principal.fingerprint)
            and (frozenset(key.groups), frozenset(key.scopes)) == (principal.groups, principal.scopes)
            for key in settings.api_keys
        )
    if principal.issuer == PROXY_ISSUER:
        return bool(settings.user_header)
    if principal.issuer == CERTIFICATE_ISSUER:
        return settings.client_certificates
    return any(issuer.issuer == principal.issuer for issuer in settings.issuers)
