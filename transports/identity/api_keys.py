"""API keys: long random secrets of programs that cannot log in, known by their hashes only. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from mcp_gateway.config.identity_settings import ApiKeySettings
from mcp_gateway.transports.ports.principal import Principal

from .jwt_verification import fingerprint_of

API_KEY_ISSUER = "api-key"


def principal_of_api_key(shown: bytes, keys: Sequence[ApiKeySettings]) -> Principal | None:
    """Whose key this is; None where it is nobody's. Takes as long for each key, the last and a wrong one."""
    digest = f"sha256:{hashlib.sha256(shown).hexdigest()}"
    found = None
    for key in keys:
        if hmac.compare_digest(key.hash, digest):
            found = key
    if found is None:
        return None
    return Principal(
        issuer=API_KEY_ISSUER,
        subject=found.name,
        client=found.name,
        groups=frozenset(found.groups),
        scopes=frozenset(found.scopes),
        fingerprint=fingerprint_of(shown),
    )
