"""The cookie of an operator: for the operators' pages only, and of this gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server import operator_cookies
from mcp_gateway.transports.downstream.server.operator_cookies import COOKIE, HOLDS_S, LARGEST_COOKIE, OperatorCookies
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.protocol.sealed.sealing import Seal

SEAL = Seal(b"0123456789abcdef")
SHOWN = Credential(kind=CredentialKind.BEARER, value="a.b.c")
HERE = OperatorCookies(SEAL, "http://127.0.0.1:4000")


def pair(cookies: OperatorCookies, credential: Credential = SHOWN) -> str:
    made = cookies.cookie_for(credential)
    assert made is not None
    return made.partition(";")[0]


@pytest.mark.parametrize(
    ("base_url", "attributes"),
    [
        ("http://127.0.0.1:4000", "; Path=/metrics; HttpOnly; SameSite=Strict"),
        ("https://gw.example/base/", "; Path=/base/metrics; HttpOnly; SameSite=Strict; Secure"),
    ],
)
def test_it_is_shown_to_the_operators_pages_only_and_to_no_script(base_url: str, attributes: str) -> None:
    made = OperatorCookies(SEAL, base_url).cookie_for(SHOWN)
    assert made is not None
    assert made.endswith(attributes)
    assert OperatorCookies(SEAL, base_url).farewell == f"{COOKIE}={attributes}; Max-Age=0"


def test_what_was_shown_comes_back_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    cookies = f"theme=dark; {pair(HERE)}; x=y"
    assert HERE.credential_in(cookies) == SHOWN
    now_ms = operator_cookies._now_ms()
    monkeypatch.setattr(operator_cookies, "_now_ms", lambda: now_ms + HOLDS_S * 1_000 + 1)
    assert HERE.credential_in(cookies) is None


def test_one_that_a_browser_would_drop_is_not_given() -> None:
    longest = next(
        size for size in range(4_000, 0, -1) if HERE.cookie_for(Credential(kind=CredentialKind.BEARER, value="x" * size))
    )
    assert len(pair(HERE, Credential(kind=CredentialKind.BEARER, value="x" * longest))) <= LARGEST_COOKIE
    assert longest > 2_500


@given(st.text(max_size=100))
def test_whatever_else_is_in_the_header_is_nobody(text: str) -> None:
    assert HERE.credential_in(text) is None
    assert HERE.credential_in(f"{COOKIE}={text}") is None
