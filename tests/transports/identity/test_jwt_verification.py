"""Tokens that are right, and every way of being wrong: forged, confused, for others, too early, too late, too long."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.config.identity_settings import ALGORITHMS, IssuerSettings
from mcp_gateway.transports.identity.claims import Audience, audience_of
from mcp_gateway.transports.identity.jwks import SigningKey, read_keys
from mcp_gateway.transports.identity.jwt_verification import LONGEST_TOKEN, read_token, verify
from mcp_gateway.transports.identity.rejection import CredentialRejected, KeyUnknown
from mcp_gateway.transports.ports.principal import Principal
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, base64url, compact, jwks, right_claims


class From(NamedTuple):
    """So many seconds after the moment at which a test runs: these tables are made long before."""

    seconds: float


def at_run(claims: dict[str, Any]) -> dict[str, Any]:
    now_s = time.time()
    return {name: now_s + value.seconds if isinstance(value, From) else value for name, value in claims.items()}


EC_KEY, RSA_KEY, ED_KEY, STRANGER = (
    IssuerKey.make("ec"),
    IssuerKey.make("rsa", "RS256"),
    IssuerKey.make("ed", "EdDSA"),
    IssuerKey.make("ec"),  # of the same name as the issuer's
)
KEYS = read_keys(jwks(EC_KEY, RSA_KEY, ED_KEY))
TRUSTED = IssuerSettings(issuer=ISSUER)
HERE = audience_of(TRUSTED, PUBLIC_URL)


def principal(
    token: str, issuer: IssuerSettings = TRUSTED, keys: tuple[SigningKey, ...] = KEYS, audience: Audience = HERE
) -> Principal:
    return verify(read_token(token.encode()), keys, issuer, audience, time.time())


def reason(token: str, issuer: IssuerSettings = TRUSTED, keys: tuple[SigningKey, ...] = KEYS) -> str:
    with pytest.raises(CredentialRejected) as caught:
        principal(token, issuer, keys)
    return str(caught.value)


@pytest.mark.parametrize("key", [EC_KEY, RSA_KEY, ED_KEY])
def test_a_token_of_the_issuer_gives_its_principal(key: IssuerKey) -> None:
    found = principal(key.token())
    assert (found.issuer, found.subject, found.client) == (ISSUER, "alice", "inspector")
    assert found.scopes == {"mcp:tools", "files:read"}
    assert found.groups == {"staff", "dev"}
    assert found.key == f"{ISSUER} alice"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_asymmetric_algorithm_is_taken_where_it_is_configured(algorithm: str) -> None:
    key = IssuerKey.make("k", algorithm)
    issuer = IssuerSettings(issuer=ISSUER, algorithms=(algorithm,))
    assert principal(key.token(), issuer, read_keys(jwks(key))).subject == "alice"
    other = IssuerSettings(issuer=ISSUER, algorithms=tuple({*ALGORITHMS} - {algorithm}))
    assert "in a way that is not taken" in reason(key.token(), other, read_keys(jwks(key)))


RIGHT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a JWT of no special type", {}, {"typ": "JWT"}),
    ("no type at all", {}, {"typ": None}),
    ("a type in capitals, with its prefix", {}, {"typ": "application/AT+JWT"}),
    ("no name of a key", {}, {"kid": None}),
    ("several audiences", {"aud": ["https://other", f"{PUBLIC_URL}/mcp/servers/files"]}, {}),
    ("the gateway itself", {"aud": PUBLIC_URL}, {}),
    ("the gateway itself, with a slash", {"aud": f"{PUBLIC_URL}/"}, {}),
    ("just expired, within leeway", {"exp": From(-10)}, {}),
    ("just not valid yet, within leeway", {"nbf": From(10)}, {}),
    ("a list of scopes", {"scope": ["mcp:tools", "files:read"]}, {}),
    ("one group", {"groups": "staff"}, {}),
    ("neither scopes nor groups", {"scope": None, "groups": None}, {}),
    (
        "an embedded key, which nobody looks at",
        {},
        {"jwk": STRANGER.jwk(), "jku": "https://evil/", "x5u": "https://evil/", "x5c": ["x"]},
    ),
]


@pytest.mark.parametrize(("claims", "header"), [case[1:] for case in RIGHT], ids=[case[0] for case in RIGHT])
def test_what_may_vary_in_a_token_is_taken(claims: dict[str, Any], header: dict[str, Any]) -> None:
    assert principal(EC_KEY.token(at_run(claims), header)).subject == "alice"


WRONG: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("another issuer", {"iss": "https://id.example.evil"}, {}),
    ("the issuer with a slash", {"iss": f"{ISSUER}/"}, {}),
    ("no issuer", {"iss": None}, {}),
    ("issuers in a list", {"iss": [ISSUER]}, {}),
    ("another audience", {"aud": "https://other.example/mcp"}, {}),
    ("an audience that begins like ours", {"aud": f"{PUBLIC_URL}.evil/mcp"}, {}),
    ("an audience beside ours", {"aud": f"{PUBLIC_URL}/mcpx"}, {}),
    ("no audience", {"aud": None}, {}),
    ("an empty audience", {"aud": []}, {}),
    ("an audience that is a number", {"aud": 1}, {}),
    ("an audience in an object", {"aud": {PUBLIC_URL: True}}, {}),
    ("expired", {"exp": From(-31)}, {}),
    ("no end", {"exp": None}, {}),
    ("an end in words", {"exp": str(2**40)}, {}),
    ("an end that is true", {"exp": True}, {}),
    ("an end beyond all numbers", {"exp": 10**400}, {}),
    ("an end without end", {"exp": float("inf")}, {}),
    ("an end that is no number", {"exp": float("nan")}, {}),
    ("an end in a list", {"exp": [2**40]}, {}),
    ("not valid yet", {"nbf": From(60)}, {}),
    ("a beginning in words", {"nbf": "0"}, {}),
    ("no subject", {"sub": None}, {}),
    ("an empty subject", {"sub": ""}, {}),
    ("a subject that is a number", {"sub": 7}, {}),
    ("a subject with a line break", {"sub": "alice\nbob"}, {}),
    ("a subject without end", {"sub": "a" * 1_001}, {}),
    ("a client that is no name", {"client_id": ["a"]}, {}),
    ("groups in an object", {"groups": {"admin": True}}, {}),
    ("groups that are numbers", {"groups": [1]}, {}),
    ("scopes in an object", {"scope": {"a": 1}}, {}),
    ("bound to a key of its holder", {"cnf": {"jkt": "x"}}, {}),
    ("a logout token", {}, {"typ": "logout+jwt"}),
    ("an ID token with a nonce", {"nonce": "n"}, {"typ": "JWT"}),
    ("an ID token that does not say what it is", {"nonce": "n"}, {"typ": None}),
    ("an ID token that was issued beside an access token", {"at_hash": "h"}, {"typ": "application/jwt"}),
    ("an ID token whose hash is empty", {"at_hash": ""}, {"typ": "JWT"}),
    ("a DPoP proof", {}, {"typ": "dpop+jwt"}),
    ("a type that is no word", {}, {"typ": ["at+jwt"]}),
    ("something critical", {}, {"crit": ["exp"]}),
    ("an unencoded payload", {}, {"b64": False}),
    ("an unencoded payload, said to be critical", {}, {"b64": False, "crit": ["b64"]}),
    ("a key's name as a path", {}, {"kid": "../../../../dev/null"}),
    ("a key's name as SQL", {}, {"kid": "x' UNION SELECT 'key"}),
    ("a key's name that is a number", {}, {"kid": 7}),
    ("a key's name in a list", {}, {"kid": ["ec"]}),
    ("an endless key's name", {}, {"kid": "e" * 501}),
    ("a key of another kind", {}, {"kid": "rsa"}),
    ("no algorithm", {}, {"alg": None}),
    ("the algorithm none", {}, {"alg": "none"}),
    ("the algorithm None, in other letters", {}, {"alg": "nOnE"}),
    ("a symmetric algorithm", {}, {"alg": "HS256"}),
    ("an algorithm of another key", {}, {"alg": "RS256"}),
    ("an algorithm that is a list", {}, {"alg": ["ES256"]}),
]


@pytest.mark.parametrize(("claims", "header"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_is_wrong_in_a_token_that_is_signed_properly_is_found(claims: dict[str, Any], header: dict[str, Any]) -> None:
    """The issuer's own key signs each: the signature is right wherever the key can be found at all."""
    text = reason(EC_KEY.token(at_run(claims), header))
    assert "alice" not in text


def test_a_token_of_a_stranger_is_refused_by_its_signature() -> None:
    assert "signature" in reason(STRANGER.token())
    assert "signature" in reason(STRANGER.token(header={"kid": None}))
    assert "signature" in reason(STRANGER.token(header={"jwk": STRANGER.jwk()}))


def test_a_token_without_signature_is_refused() -> None:
    unsigned = compact({"alg": "none", "typ": "JWT"}, right_claims(), b"")
    assert "no JWT" in reason(unsigned)
    assert "in a way that is not taken" in reason(f"{unsigned}AAAA")
    signed = EC_KEY.token().rpartition(".")[0]
    assert "no JWT" in reason(f"{signed}.")
    assert "signature" in reason(f"{signed}.AAAA")


@pytest.mark.parametrize("shape", ["pem", "der", "jwk", "n"])
def test_a_public_key_is_never_taken_for_a_secret(shape: str) -> None:
    """Confusion of algorithms: HS256 with what everybody knows. Source: RFC 8725, section 2.1."""
    public = RSA_KEY.private.public_key()
    secret = {
        "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(RSA_KEY.jwk()).encode(),
        "n": RSA_KEY.jwk()["n"].encode(),
    }[shape]
    signed = compact({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}, right_claims(), b"").rstrip(".")
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    assert "in a way that is not taken" in reason(f"{signed}.{base64url(signature)}")


def test_a_key_of_one_issuer_makes_no_tokens_of_another() -> None:
    """Keys are those of the issuer that the token names; a name of a key that another issuer has is unknown here."""
    other = IssuerKey.make("other")
    forged = other.token()
    with pytest.raises(KeyUnknown):
        principal(forged)
    assert "another issuer" in reason(forged, IssuerSettings(issuer="https://other.example"), read_keys(jwks(other)))


def test_an_unknown_key_is_told_apart_from_a_wrong_signature() -> None:
    """The one leads to a request to the issuer, the other does not: who forges a known name costs nobody a request."""
    with pytest.raises(KeyUnknown):
        principal(IssuerKey.make("new").token())
    with pytest.raises(CredentialRejected) as caught:
        principal(STRANGER.token())
    assert not isinstance(caught.value, KeyUnknown)


def test_the_signature_of_an_elliptic_curve_in_another_form_is_refused() -> None:
    """DER instead of R and S; and all zeros, which some verifiers took (CVE-2022-21449)."""
    signed, _, signature = EC_KEY.token().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    der = EC_KEY.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    assert decode_dss_signature(der)
    for forged in (der, bytes(64), raw + b"\0", raw[:-1], raw[::-1]):
        assert "signature" in reason(f"{signed}.{base64url(forged)}")


def test_every_change_of_a_token_is_noticed() -> None:
    token = EC_KEY.token()
    for index in range(0, len(token), 7):
        if token[index] != ".":
            changed = token[:index] + ("A" if token[index] != "A" else "B") + token[index + 1 :]
            assert reason(changed)


def test_a_token_has_one_form_only() -> None:
    """A revoked token must not come back with padding, or with bits set that nobody reads."""
    token = EC_KEY.token()
    for other in (f"{token}=", f"{token}==", token.replace(".", "=.", 1), f" {token}", f"{token}\n", f"{token}.", token + "é"):
        assert reason(other)
    assert token[-1] in "AQgw"  # of 64 bytes: the last four bits are zero
    assert "not encoded as it should be" in reason(token[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[token[-1]])


def test_two_signatures_of_the_same_token_have_one_fingerprint() -> None:
    """Whoever holds a token of an elliptic curve can write (R, N-S): a revocation must hold for that, too."""
    signed, _, signature = EC_KEY.token().rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    twin = f"{signed}.{base64url(other)}"
    assert principal(twin).fingerprint == principal(f"{signed}.{signature}").fingerprint != ""


@pytest.mark.parametrize("extra", [0, 1])
def test_a_token_may_be_as_long_as_the_limit_and_no_longer(extra: int) -> None:
    shortest = next(n for n in range(4) if len(EC_KEY.token({"x": "y" * (10_000 + n)})) % 4 == 0)
    missing = LONGEST_TOKEN - len(EC_KEY.token({"x": "y" * (10_000 + shortest)}))
    token = EC_KEY.token({"x": "y" * (10_000 + shortest + missing * 3 // 4)})
    assert len(token) == LONGEST_TOKEN
    if extra:
        assert "longer than" in reason(f"{token}A")
    else:
        assert principal(token).subject == "alice"


def test_claims_with_other_names_are_found_also_inside_of_objects() -> None:
    issuer = IssuerSettings(
        issuer=ISSUER, subject_claim="user.id", groups_claim="realm_access.roles", scope_claim="https://example.com/scopes"
    )
    claims = {"user": {"id": "bob"}, "realm_access": {"roles": ["admin"]}, "https://example.com/scopes": ["a"]}
    found = principal(EC_KEY.token(claims), issuer)
    assert (found.subject, found.groups, found.scopes) == ("bob", {"admin"}, {"a"})
    assert "no subject" in reason(EC_KEY.token({"user": "bob"}), issuer)
    assert "no subject" in reason(EC_KEY.token({"user": {"id": {"id": "bob"}}}), issuer)


def test_an_audience_that_is_configured_is_the_only_one() -> None:
    issuer = IssuerSettings(issuer=ISSUER, audience=("api://gateway",))
    named = audience_of(issuer, PUBLIC_URL)
    assert principal(EC_KEY.token({"aud": "api://gateway"}), issuer, audience=named).subject == "alice"
    with pytest.raises(CredentialRejected, match="not made out"):
        principal(EC_KEY.token(), issuer, audience=named)


def test_without_any_address_of_ours_no_token_is_for_us() -> None:
    for audience in ("", "/", "/mcp", "/mcp/x"):
        with pytest.raises(CredentialRejected, match="not made out"):
            principal(EC_KEY.token({"aud": audience}), audience=audience_of(TRUSTED, ""))


def test_a_principal_ends_when_its_token_is_no_longer_taken() -> None:
    end_s = int(time.time()) + 60
    assert principal(EC_KEY.token({"exp": end_s})).expires_ms == (end_s + 30) * 1000


def test_a_token_that_names_no_key_is_tried_against_few() -> None:
    many = [IssuerKey.make(f"k{n}") for n in range(7)]
    keys = read_keys(jwks(*many))
    assert principal(many[4].token(header={"kid": None}), keys=keys).subject == "alice"
    with pytest.raises(KeyUnknown):
        principal(many[5].token(header={"kid": None}), keys=keys)


PIECES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b".",
            b"..",
            b"e30",
            b"eyJhbGciOiJub25lIn0",
            b"=",
            b"e30.e30.e30",
            b"bnVsbA",
            b"W10",
            *EC_KEY.token().encode().split(b"."),
        ]
    ),
)


@given(st.lists(PIECES, max_size=8), st.booleans())
@settings(max_examples=500)
def test_any_bytes_as_a_token_end_in_a_reason(pieces: list[bytes], is_dotted: bool) -> None:
    token = (b"." if is_dotted else b"").join(pieces)
    if token == EC_KEY.token().encode():
        return
    with pytest.raises(CredentialRejected):
        verify(read_token(token), KEYS, TRUSTED, HERE, 10**12)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "x5c", "cty", "zip", "enc"])
CLAIM_NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "sub", "scope", "groups", "client_id", "azp", "cnf", "jti"])


@given(st.dictionaries(CLAIM_NAMES, JSON, max_size=4), st.dictionaries(HEADER_NAMES, JSON, max_size=3))
@settings(max_examples=300)
def test_any_claims_and_headers_that_are_signed_end_in_a_principal_or_a_reason(
    claims: dict[str, Any], header: dict[str, Any]
) -> None:
    try:
        found = principal(EC_KEY.token(claims, header))
    except CredentialRejected:
        return
    assert found.issuer == ISSUER
    assert found.subject
    assert found.expires_ms > time.time() * 1000


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_that_are_signed_end_in_a_reason(header: bytes, claims: bytes) -> None:
    signed = compact(header, claims, b"").rstrip(".")
    token = f"{signed}.{base64url(EC_KEY.sign(signed.encode()))}"
    with pytest.raises(CredentialRejected):
        principal(token)


def test_json_that_nests_without_end_is_a_reason() -> None:
    for document in (b"[" * 9_000, b'{"a":' * 1_500 + b"1" + b"}" * 1_500):
        assert reason(compact({"alg": "ES256", "kid": "ec"}, document, bytes(64)))
