"""Sealed tokens: what was sealed comes back, anything else is broken."""

from __future__ import annotations

import base64
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.sealing import Seal, SealBroken

SEAL = Seal(b"a secret of the node")
ALPHABET = string.ascii_letters + string.digits + "-_"


@settings(deadline=None)
@given(st.binary(max_size=2_000), st.text(max_size=20))
def test_what_was_sealed_comes_back_in_visible_ascii(content, kind):
    token = SEAL.seal(kind, content)
    assert SEAL.open(kind, token) == content
    assert set(token) <= set(ALPHABET)


def test_another_cell_with_the_same_secret_opens_it():
    assert Seal(b"a secret of the node").open("session", SEAL.seal("session", b"x")) == b"x"


def test_the_same_content_is_never_sealed_twice_alike():
    assert SEAL.seal("session", b"x") != SEAL.seal("session", b"x")


@settings(deadline=None)
@given(st.binary(max_size=60), st.data())
def test_any_altered_token_is_broken(content, data):
    """Also where only its spelling changes: spare bits of the last character, padding, the other Base64 alphabet."""
    token = SEAL.seal("session", content)
    position = data.draw(st.integers(0, len(token)))
    altered = token[:position] + data.draw(st.text(max_size=2)) + token[position + data.draw(st.integers(0, 2)) :]
    if altered != token:
        with pytest.raises(SealBroken):
            SEAL.open("session", altered)


@pytest.mark.parametrize("length", range(6))
def test_every_other_character_at_every_place_is_an_alteration(length):
    token = SEAL.seal("session", b"x" * length)
    for position, character in enumerate(token):
        for other in ALPHABET + "+/=. ":
            if other != character:
                with pytest.raises(SealBroken):
                    SEAL.open("session", token[:position] + other + token[position + 1 :])


@pytest.mark.parametrize("appended", ["=", "==", "A", "\n", " ", "\0", "é"])
def test_anything_appended_or_prepended_is_an_alteration(appended):
    token = SEAL.seal("session", b"content")
    for altered in (token + appended, appended + token):
        with pytest.raises(SealBroken):
            SEAL.open("session", altered)


def test_the_standard_alphabet_is_no_other_spelling():
    token = next(token for token in (SEAL.seal("session", b"\xff" * 30) for _ in range(1_000)) if "-" in token or "_" in token)
    with pytest.raises(SealBroken):
        SEAL.open("session", token.replace("-", "+").replace("_", "/"))


def test_another_kind_and_another_key_do_not_open_it():
    token = SEAL.seal("session", b"x")
    with pytest.raises(SealBroken):
        SEAL.open("cursor", token)
    with pytest.raises(SealBroken):
        Seal(b"a secret of another node").open("session", token)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "A",
        "AAAA",
        "A" * 15,
        "A" * 16,
        "A" * 40,
        "!!!!",
        "ключ",
        "\ud800",
        "\0" * 20,
        "A" * 65_537,
        "=" * 10_000_000,
        "A" * 10_000_000,
    ],
    ids=lambda token: f"{token[:5]!r} * {len(token)}",
)
def test_what_was_never_a_token_is_broken(token):
    with pytest.raises(SealBroken):
        SEAL.open("session", token)


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_broken(token):
    with pytest.raises(SealBroken):
        SEAL.open("session", token)


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        Seal(b"short")
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Seal(b"a secret of the node", b"short")


def test_what_was_sealed_with_a_secret_of_before_is_opened_until_that_is_forgotten() -> None:
    before = Seal(b"a secret of the node")
    between, after = Seal(b"the next secret of it", b"a secret of the node"), Seal(b"the next secret of it")
    assert between.open("session", before.seal("session", b"x")) == b"x"
    assert after.open("session", between.seal("session", b"x")) == b"x"
    with pytest.raises(SealBroken):
        after.open("session", before.seal("session", b"x"))


def test_sealed_alike_equal_contents_have_equal_tokens_and_others_have_not() -> None:
    one = SEAL.seal_alike("task", b"content")
    assert SEAL.open("task", one) == b"content"
    assert one == SEAL.seal_alike("task", b"content")
    assert (
        len({one, SEAL.seal_alike("task", b"contents"), SEAL.seal_alike("tas", b"kcontent"), SEAL.seal("task", b"content")}) == 4
    )
