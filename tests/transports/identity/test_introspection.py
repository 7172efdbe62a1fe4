"""What an issuer is asked about a token, and which answers make it somebody's."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.identity.claims import audience_of
from mcp_gateway.transports.identity.introspection import (
    HOLDS_S,
    IntrospectionUnusable,
    introspection_form,
    introspection_headers,
    principal_of_answer,
)
from mcp_gateway.transports.identity.rejection import CredentialRejected
from mcp_gateway.transports.ports.principal import Principal
from tests.doubles.tokens import ISSUER, PUBLIC_URL, right_claims

SETTINGS = IssuerSettings(issuer=ISSUER, introspection_url=f"{ISSUER}/introspect", client_id="the gateway")


def principal(body: bytes, status: int = 200) -> Principal:
    return principal_of_answer(status, body, b"opaque", SETTINGS, audience_of(SETTINGS, PUBLIC_URL), time.time())


def answer(**claims: Any) -> bytes:
    said = {"active": True, "token_type": "Bearer", **right_claims(), **claims}
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


def test_an_active_token_gives_its_principal() -> None:
    found = principal(answer())
    assert (found.key, found.client) == (f"{ISSUER} alice", "inspector")
    assert len(found.fingerprint) == 32


def test_what_may_be_missing_is() -> None:
    found = principal(answer(iss=None, exp=None, sub=None, token_type=None, scope=None))
    assert found.key == f"{ISSUER} inspector"
    assert found.expires_ms <= (time.time() + HOLDS_S + 30) * 1000


@pytest.mark.parametrize(
    "claims",
    [
        {"active": False},
        {"aud": None},
        {"aud": "https://other.example"},
        {"iss": "https://other.example"},
        {"exp": time.time() - 60},
        {"exp": "soon"},
        {"token_type": "DPoP"},
        {"token_type": 7},
        {"token_type": "refresh_token"},
        {"cnf": {"jkt": "x"}},
        {"sub": None, "client_id": None},
    ],
)
def test_what_is_not_a_token_for_us_is_rejected(claims: dict[str, Any]) -> None:
    with pytest.raises(CredentialRejected):
        principal(answer(**claims))


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, b'{"active": true}'), (500, b""), (204, b""), (200, b""), (200, b"[]"), (200, b"{}"), (200, b'{"active": "true"}')],
)
def test_what_says_nothing_about_the_token_is_no_rejection(status: int, body: bytes) -> None:
    with pytest.raises(IntrospectionUnusable):
        principal(body, status)


@given(st.binary(max_size=100))
def test_any_bytes_end_in_a_reason(body: bytes) -> None:
    with pytest.raises((IntrospectionUnusable, CredentialRejected)):
        principal(body)


def test_the_gateway_shows_who_it_is_as_oauth_encodes_it() -> None:
    value = introspection_headers(SETTINGS, "a:b%c d")["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(value) == b"the+gateway:a%3Ab%25c+d"
    assert introspection_headers(IssuerSettings(issuer=ISSUER, audience=("x",)), "t") == {"Authorization": "Bearer t"}
    assert introspection_headers(IssuerSettings(issuer=ISSUER, audience=("x",)), "") == {}


def test_the_token_is_sent_as_it_came() -> None:
    assert introspection_form(b"opaque")["token"] == "opaque"
    assert introspection_form(b"\xff")["token"] == "\ufffd"
