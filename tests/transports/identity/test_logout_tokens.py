"""Logout tokens that are right, and every way of being wrong."""

from __future__ import annotations

import time
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import IssuerSettings, LogOut
from mcp_gateway.transports.identity.claims import audience_of
from mcp_gateway.transports.identity.jwks import read_keys
from mcp_gateway.transports.identity.jwt_verification import read_token, verify
from mcp_gateway.transports.identity.logout_tokens import BELIEVED_S, read_log_out
from mcp_gateway.transports.identity.rejection import CredentialRejected
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, compact, jwks, logout_claims

KEY = IssuerKey.make("k")
KEYS = read_keys(jwks(KEY))
TRUSTED = IssuerSettings(issuer=ISSUER, logout_audience="gateway")
NOW_S = 1_800_000_000.0


def log_out(claims: dict[str, Any], header: dict[str, Any] | None = None, issuer: IssuerSettings = TRUSTED) -> LogOut:
    shown = KEY.token(logout_claims(NOW_S) | claims, {"typ": "logout+jwt", **(header or {})})
    return read_log_out(read_token(shown.encode()), KEYS, issuer, NOW_S)


@pytest.mark.parametrize(
    ("claims", "subject", "session"),
    [({}, "alice", ""), ({"sid": "s1"}, "alice", "s1"), ({"sid": "s1", "sub": None}, "", "s1"), ({"sid": 7}, "alice", "")],
)
def test_it_says_who_was_logged_out_and_when(claims: dict[str, Any], subject: str, session: str) -> None:
    found = log_out(claims)
    assert found == LogOut(issuer=ISSUER, subject=subject, session=session, issued_ms=int(NOW_S * 1000), token_id="once")


@pytest.mark.parametrize("kind", ["logout+jwt", "application/logout+jwt", "LOGOUT+JWT", "JWT", None])
def test_it_may_be_typed_as_what_it_is_or_not_at_all(kind: str | None) -> None:
    """Source: section 2.4: explicit typing is recommended; issuers of before it have none."""
    assert log_out({}, {"typ": kind}).subject == "alice"


def test_the_subject_is_found_where_access_tokens_of_the_issuer_have_it() -> None:
    entra = attrs.evolve(TRUSTED, subject_claim="oid")
    assert log_out({"sid": "s", "sub": "pairwise"}, issuer=entra).subject == ""
    assert log_out({"oid": "alice", "sub": "pairwise"}, issuer=entra).subject == "alice"


EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.mark.parametrize(
    ("claims", "header", "text"),
    [
        ({}, {"typ": "at+jwt"}, "type"),
        ({}, {"typ": "secevent+jwt"}, "type"),
        ({}, {"crit": ["x"]}, "not known here"),
        ({"nonce": "n"}, {}, "type"),
        ({"iss": "https://other.example"}, {}, "another issuer"),
        ({"aud": "somebody"}, {}, "not made out"),
        ({"aud": None}, {}, "not made out"),
        ({"aud": f"{PUBLIC_URL}/mcp"}, {}, "not made out"),
        ({"events": None}, {}, "no logout"),
        ({"events": [EVENT]}, {}, "no logout"),
        ({"events": {EVENT: None}}, {}, "no logout"),
        ({"events": {EVENT + "/": {}}}, {}, "no logout"),
        ({"iat": None}, {}, "iat"),
        ({"iat": "now"}, {}, "iat"),
        ({"iat": NOW_S + 31}, {}, "not of now"),
        ({"iat": NOW_S - BELIEVED_S - 31}, {}, "not of now"),
        ({"exp": NOW_S - 31}, {}, "expired"),
        ({"exp": True}, {}, "exp"),
        ({"jti": None}, {}, "name"),
        ({"jti": ""}, {}, "name"),
        ({"sub": None}, {}, "neither"),
        ({"sub": ["alice"], "sid": ""}, {}, "neither"),
    ],
)
def test_what_is_none_is_refused(claims: dict[str, Any], header: dict[str, Any], text: str) -> None:
    with pytest.raises(CredentialRejected, match=text):
        log_out(claims, header)


def test_an_issuer_that_is_not_configured_for_it_logs_nobody_out() -> None:
    with pytest.raises(CredentialRejected, match="not taken"):
        log_out({"aud": ""}, issuer=attrs.evolve(TRUSTED, logout_audience=""))


def test_another_key_and_no_key_at_all_are_refused() -> None:
    stranger = IssuerKey.make("k")
    for shown in (
        stranger.token(logout_claims(NOW_S), {"typ": "logout+jwt"}),
        compact({"alg": "none", "typ": "logout+jwt"}, logout_claims(NOW_S), b"x"),
    ):
        with pytest.raises(CredentialRejected):
            read_log_out(read_token(shown.encode()), KEYS, TRUSTED, NOW_S)


def test_a_logout_token_is_no_access_token_whatever_it_is_made_out_to() -> None:
    """Entra's access tokens for an app registration, and its logout tokens, have the same audience. Source: RFC 8417, 4.5."""
    issuer = attrs.evolve(TRUSTED, audience=("gateway",))
    shown = KEY.token({**logout_claims(time.time()), "exp": time.time() + 60})
    with pytest.raises(CredentialRejected, match="another type"):
        verify(read_token(shown.encode()), KEYS, issuer, audience_of(issuer, PUBLIC_URL), time.time())


@given(st.dictionaries(st.sampled_from([*logout_claims(0), "sid", "nonce", "exp"]), st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5), st.lists(st.text(max_size=3)),
    st.dictionaries(st.sampled_from([EVENT, "x"]), st.one_of(st.none(), st.just({}))),
)))  # fmt: skip
def test_whatever_an_issuer_signs_is_a_logout_or_refused(claims: dict[str, Any]) -> None:
    token = read_token(KEY.token().encode())
    token = attrs.evolve(token, claims={**logout_claims(NOW_S), **claims})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcp_gateway.transports.identity.logout_tokens.check_signature", lambda *_: None)
        try:
            found = read_log_out(token, KEYS, TRUSTED, NOW_S)
        except CredentialRejected:
            return
    assert found.subject or found.session
    assert found.token_id
