"""Keys are replaced one after the other: at each step whoever seals is understood by whoever opens."""

from __future__ import annotations

import itertools

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.key_ring import KeyRing

NONCE = b"n" * 12
OLD, NEW = b"o" * 32, b"n" * 32
STEPS = ((OLD,), (OLD, NEW), (NEW, OLD), (NEW,))
"""How a key is replaced: every member opens what its neighbours in this row seal."""


def ring(*secrets: bytes, purpose: bytes = b"test") -> KeyRing:
    return KeyRing(*secrets, purpose=purpose)


def test_the_first_key_seals_and_every_one_opens() -> None:
    for one, other in itertools.pairwise(STEPS):
        for sealing, opening in ((one, other), (other, one)):
            assert ring(*opening).decrypt(NONCE, ring(*sealing).encrypt(NONCE, b"text", b"about"), b"about") == b"text"
    assert ring(NEW, OLD).encrypt(NONCE, b"text", b"about") == ring(NEW).encrypt(NONCE, b"text", b"about")


@pytest.mark.parametrize(
    "other",
    [
        ring(OLD).encrypt(NONCE, b"text", b"about"),
        ring(NEW).encrypt(NONCE, b"text", b"something else"),
        ring(NEW, purpose=b"other").encrypt(NONCE, b"text", b"about"),
        b"",
    ],
)
def test_under_another_key_about_something_else_or_for_another_purpose_nothing_is_opened(other: bytes) -> None:
    with pytest.raises((InvalidTag, ValueError)):
        ring(NEW).decrypt(NONCE, other, b"about")


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_any_bytes_are_refused_with_the_errors_that_are_named(sealed: bytes, nonce: bytes) -> None:
    with pytest.raises((InvalidTag, ValueError)):
        ring(NEW, OLD).decrypt(nonce, sealed, b"about")


def test_without_a_secret_there_is_no_ring() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        KeyRing(purpose=b"test")
