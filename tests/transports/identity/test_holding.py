"""What still counts after a change of the settings."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
import pytest

from mcp_gateway.config.identity_settings import ApiKeySettings, AuthSettings, IssuerSettings
from mcp_gateway.transports.identity.api_keys import principal_of_api_key
from mcp_gateway.transports.identity.holding import still_holds
from mcp_gateway.transports.ports.principal import Principal

KEY = ApiKeySettings(name="ci", hash=f"sha256:{hashlib.sha256(b'key').hexdigest()}", scopes=["a"])  # type: ignore[arg-type]
ISSUER = IssuerSettings(issuer="https://id.example", audience=("x",))
AUTH = AuthSettings(user_header="X-User", client_certificates=True, issuers=(ISSUER,), api_keys=(KEY,))
CI = principal_of_api_key(b"key", [KEY])


@pytest.mark.parametrize("issuer", ["proxy", "certificate", "https://id.example"])
def test_a_principal_holds_where_whoever_vouches_is_still_believed(issuer: str) -> None:
    principal = Principal(issuer=issuer, subject="alice")
    assert still_holds(principal, AUTH)
    assert not still_holds(principal, AuthSettings(mode="optional"))


@pytest.mark.parametrize(
    "change",
    [{"hash": f"sha256:{hashlib.sha256(b'other').hexdigest()}"}, {"scopes": ["a", "b"]}, {"groups": ["g"]}, {"name": "other"}],
)
def test_a_key_holds_until_it_or_its_rights_change(change: dict[str, Any]) -> None:
    assert CI is not None
    assert still_holds(CI, AUTH)
    assert not still_holds(CI, attrs.evolve(AUTH, api_keys=(attrs.evolve(KEY, **change),)))
    assert not still_holds(CI, attrs.evolve(AUTH, api_keys=()))
