"""The provider does what tests of the gateway want of it."""

from __future__ import annotations

import base64
import json
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from tests.doubles.identity_provider import IdentityProvider, identity_provider

pytestmark = pytest.mark.node_js
HERE, THERE = "https://gateway.example/mcp", "https://server.example/mcp"


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    return header, claims


def test_a_service_gets_a_token_for_a_resource(provider: IdentityProvider) -> None:
    header, claims = parts(provider.token(HERE, "mcp:tools files:read"))
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    assert (claims["iss"], claims["aud"], claims["sub"]) == (provider.issuer, HERE, "service")
    assert claims["scope"] == "mcp:tools files:read"


def test_a_user_logs_in_with_a_code_and_pkce(provider: IdentityProvider) -> None:
    _, claims = parts(provider.user_token("bob", HERE))
    assert (claims["sub"], claims["client_id"], claims["groups"]) == ("bob", "inspector", ["guests"])


def test_a_token_is_exchanged_for_another_audience(provider: IdentityProvider) -> None:
    _, claims = parts(provider.exchanged(provider.user_token("bob", HERE), THERE))
    assert (claims["sub"], claims["aud"], claims["client_id"]) == ("bob", THERE, "exchanger")
    with pytest.raises(urllib.error.HTTPError):
        provider.exchanged("a.b.c", THERE)


def test_an_opaque_token_is_introspected_until_it_is_revoked(provider: IdentityProvider) -> None:
    token = provider.token(HERE, client="opaque-service")
    assert "." not in token
    said = provider.introspected(token)
    assert (said["active"], said["aud"], said["client_id"]) == (True, HERE, "opaque-service")
    provider.revoke(token, "opaque-service")
    assert provider.introspected(token) == {"active": False}


def test_tokens_can_be_short_and_keys_new(provider: IdentityProvider) -> None:
    before = parts(provider.token(HERE))[0]["kid"]
    provider.rotate_keys()
    provider.set_ttl(7)
    header, claims = parts(provider.token(HERE))
    assert header["kid"] != before
    assert claims["exp"] - claims["iat"] == 7
    provider.set_ttl(300)
