"""Which keys of a set are used and for what; when the set is asked for again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm

from mcp_gateway.transports.identity.jwks import FLOOR_S, FRESH_S, KeptKeys, KeysUnusable, keys_for, read_keys
from tests.doubles.tokens import IssuerKey, jwks

EC, RSA = IssuerKey.make("ec"), IssuerKey.make("rsa", "RS256")


def read(*members: object) -> tuple[Any, ...]:
    return read_keys(json.dumps({"keys": members}).encode())


def test_a_key_checks_what_its_type_allows_and_its_alg_narrows_that() -> None:
    assert read(EC.jwk())[0].algorithms == ("ES256",)
    assert read(RSA.jwk())[0].algorithms == ("RS256",)
    assert read(RSA.jwk(alg=None))[0].algorithms == ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


SKIPPED: list[tuple[str, object]] = [
    ("a secret", {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"}),
    ("a private key", json.loads(RSAAlgorithm.to_jwk(RSA.private)) | {"kid": "p", "key_ops": None}),
    ("a key to encrypt with", EC.jwk(use="enc")),
    ("a key that only signs", EC.jwk(key_ops=["sign"])),
    ("another type's algorithm", EC.jwk(alg="RS256")),
    ("a symmetric algorithm", RSA.jwk(alg="HS256")),
    ("no algorithm at all", RSA.jwk(alg="none")),
    ("an unknown curve", EC.jwk(crv="secp256k1", alg=None)),
    ("a point that is on no curve", EC.jwk(x="AAAA")),
    (
        "a short modulus",
        json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65_537, 1_024).public_key())) | {"key_ops": ["verify"]},
    ),
    ("a name that is a number", EC.jwk(kid=7)),
    ("no object", "key"),
    ("nothing", {}),
]


@pytest.mark.parametrize("member", [case[1] for case in SKIPPED], ids=[case[0] for case in SKIPPED])
def test_what_does_not_check_signatures_is_passed_over(member: object) -> None:
    assert [key.key_id for key in read(member, RSA.jwk())] == ["rsa"]
    with pytest.raises(KeysUnusable):
        read(member)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"\xff", b"[" * 20_000, b'{"keys": null}']
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(KeysUnusable):
        read_keys(document)


def test_a_set_is_read_up_to_its_hundredth_key() -> None:
    assert len(read(*[EC.jwk(kid=f"k{n}") for n in range(101)])) == 100


@given(st.binary(max_size=100))
def test_any_bytes_are_keys_or_refused(document: bytes) -> None:
    with pytest.raises(KeysUnusable):
        read_keys(document)


def test_a_key_is_chosen_by_its_name_and_the_algorithm() -> None:
    nameless = IssuerKey.make("x")
    keys = read(EC.jwk(), RSA.jwk(), nameless.jwk(kid=None))
    assert [key.key_id for key in keys_for(keys, "ec", "ES256")] == ["ec", None]
    assert [key.key_id for key in keys_for(keys, None, "ES256")] == ["ec", None]
    assert [key.key_id for key in keys_for(keys, "rsa", "ES256")] == [None]
    assert keys_for(keys, "ec", "ES384") == ()


def test_keys_are_asked_for_when_there_are_none_and_when_they_are_old() -> None:
    kept, keys = KeptKeys(), read_keys(jwks(EC))
    assert kept.wants_refresh(0.0)
    kept.asked(0.0)
    assert not kept.wants_refresh(FLOOR_S - 0.1)
    assert kept.wants_refresh(FLOOR_S)
    kept.asked(FLOOR_S)
    kept.given(keys, FLOOR_S)
    assert not kept.wants_refresh(FLOOR_S + FRESH_S - 0.1)
    assert kept.wants_refresh(FLOOR_S + FRESH_S)


def test_unknown_keys_lead_to_one_request_in_a_while() -> None:
    kept = KeptKeys()
    requests = 0
    for tenth in range(10 * int(FLOOR_S) * 3):
        if kept.may_refresh(tenth / 10):
            kept.asked(tenth / 10)
            requests += 1
    assert requests == 3


def test_keys_of_an_issuer_that_is_away_stay() -> None:
    kept, keys = KeptKeys(), read_keys(jwks(EC))
    kept.asked(0.0)
    kept.given(keys, 0.0)
    kept.asked(FRESH_S)  # and nothing comes
    assert kept.keys == keys
