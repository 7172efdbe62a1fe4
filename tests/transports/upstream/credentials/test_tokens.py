"""What a token endpoint answers, and what is kept of it."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.credentials.tokens import TokenRefused, Tokens, read_tokens

NOW_MS = 1_000_000


def read(status: int = 200, former: Tokens | None = None, **members: Any) -> Tokens:
    body = msgspec.json.encode({"access_token": "at-1", "token_type": "Bearer", **members})
    return read_tokens(status, body, NOW_MS, asked=("read",), former=former)


def test_an_answer_is_kept_with_its_end_and_its_scopes() -> None:
    assert read(expires_in=60, refresh_token="rt-1", scope="a b") == Tokens("at-1", "rt-1", ("a", "b"), NOW_MS + 60_000)
    assert read(token_type="bearer", expires_in="60") == Tokens("at-1", "", ("read",), NOW_MS + 60_000)


@pytest.mark.parametrize("life", [None, True, -1, 1e300, "soon", "9" * 20, [60]])
def test_an_end_that_makes_no_sense_is_no_end(life: Any) -> None:
    assert read(expires_in=life).expires_ms == 0


def test_a_refresh_token_goes_on_until_a_new_one_comes() -> None:
    """Source: RFC 6749, section 6."""
    former = Tokens("at-0", "rt-0", (), 0)
    assert read(former=former).refresh == "rt-0"
    assert read(former=former, refresh_token="rt-1").refresh == "rt-1"


def test_a_token_ends_a_little_before_its_end() -> None:
    tokens = Tokens("at", "", (), NOW_MS)
    assert [tokens.ends_soon(NOW_MS - before) for before in (30_001, 30_000, 0, -1)] == [False, True, True, True]
    assert not Tokens("at", "", (), 0).ends_soon(2**60)


@pytest.mark.parametrize(
    "members",
    [
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "a\r\nX-Evil: 1"},
        {"access_token": "é"},
        {"access_token": "a" * 16_385},
        {"access_token": 7},
        {"token_type": "DPoP"},
        {"token_type": None},
    ],
)
def test_what_is_no_bearer_token_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused):
        read(**members)


@pytest.mark.parametrize(
    ("code", "is_final"),
    [("invalid_grant", True), ("invalid_client", True), ("temporarily_unavailable", False), ("x\n", False), (7, False)],
)
def test_a_refusal_tells_whether_trying_again_is_of_use_and_shows_nothing_else(code: Any, is_final: bool) -> None:
    """Source: RFC 6749, section 5.2."""
    with pytest.raises(TokenRefused) as raised:
        read(400, error=code, error_description="s3cret")
    assert raised.value.is_final is is_final
    assert "s3cret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_token_is_shown_by_what_holds_it() -> None:
    assert "at-1" not in f"{read()!r} {read()}"


@given(st.integers(100, 599), st.binary())
def test_any_answer_is_read_or_refused(status: int, body: bytes) -> None:
    with contextlib.suppress(TokenRefused):
        read_tokens(status, body, NOW_MS, asked=())
