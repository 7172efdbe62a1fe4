"""Tokens that nobody issued, or not for this gateway."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, attack, on_both_bases
from tests.attacks.http_syntax import PING
from tests.attacks.origins import EVERYWHERE, knock
from tests.doubles.tokens import IssuerKey, base64url, compact, right_claims

STRANGER = IssuerKey.make("ec")
"""Its name is that of the issuer's own key."""


async def show(arena: Arena, transport: str, token: str) -> str:
    return await knock(arena, transport, f"Authorization: Bearer {token}")


def issuer_key(arena: Arena, name: str = "ec") -> IssuerKey:
    key: IssuerKey = arena.servers[name]
    return key


def another(arena: Arena, **claims: Any) -> dict[str, Any]:
    """Claims that no try has shown before: what has been refused once must not be remembered as that."""
    return {"jti": f"{arena.address} {next(arena.numbers)}", **claims}


def header_of(arena: Arena, **members: Any) -> Mapping[str, Any]:
    return {"alg": "ES256", "typ": "at+jwt", "kid": "ec", **members}


@attack("unauthorized", over=EVERYWHERE)
async def a_token_without_a_signature(arena: Arena, transport: str) -> str:
    """The algorithm `none`, in small and capital letters, with and without something for a signature."""
    name = ("none", "None", "NONE", "nOnE")[next(arena.numbers) % 4]
    claims = right_claims() | another(arena)
    unsigned = compact({"alg": name, "typ": "JWT"}, claims, b"")
    assert (read := await show(arena, transport, unsigned)) == "unauthorized", read
    return await show(arena, transport, unsigned + "AAAA")


@attack("unauthorized", over=EVERYWHERE)
async def a_public_key_as_a_secret(arena: Arena, transport: str) -> str:
    """HS256 with the issuer's public key as the secret, as PEM, DER, JWK and modulus."""
    key = issuer_key(arena, "rsa")
    public = key.private.public_key()
    secrets = (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).rstrip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(key.jwk()).encode(),
        key.jwk()["n"].encode(),
    )
    secret = secrets[next(arena.numbers) % len(secrets)]
    signed = compact({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, right_claims() | another(arena), b"").rstrip(".")
    return await show(arena, transport, f"{signed}.{base64url(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}")


@attack("unauthorized", over=EVERYWHERE)
async def a_key_of_the_same_name(arena: Arena, transport: str) -> str:
    """Signed by a stranger's key under the name of the issuer's."""
    return await show(arena, transport, STRANGER.token(another(arena)))


@attack("unauthorized", over=EVERYWHERE)
async def a_key_that_the_token_brings(arena: Arena, transport: str) -> str:
    """Signed by a key that the token's own header holds, as `jwk`, and names."""
    header = {"jwk": STRANGER.jwk(), "kid": (None, "ec", "new")[next(arena.numbers) % 3]}
    return await show(arena, transport, STRANGER.token(another(arena), header))


@attack("unauthorized", tries=2)
async def a_key_from_the_attacker(arena: Arena) -> str:
    """A header that says where keys are to be fetched, `jku` and `x5u`: nobody comes for them."""
    came: list[object] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(reader)
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
        read = await show(arena, EVERYWHERE[0], STRANGER.token(another(arena), {"jku": url, "x5u": url, "kid": url}))
        await asyncio.sleep(0.2)
    assert came == [], "it came for a key"
    return read


@attack("unauthorized", over=EVERYWHERE, tries=8)
async def a_key_whose_name_means_something(arena: Arena, transport: str) -> str:
    """A `kid` that is a path, SQL, a command, a URL, a null, or of another type."""
    names: tuple[Any, ...] = (
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "x' UNION SELECT 'AA' -- ",
        "|/bin/true",
        "http://127.0.0.1:1/",
        "ec\0",
        ["ec"],
        {"ec": 1},
        7,
        "k" * 5_000,
    )
    name = names[next(arena.numbers) % len(names)]
    return await show(arena, transport, STRANGER.token(another(arena), {"kid": name}))


@attack("unauthorized", over=EVERYWHERE)
async def a_key_of_another_issuer(arena: Arena, transport: str) -> str:
    """A token in the name of one issuer, signed by the key of another that is believed as well."""
    key = issuer_key(arena, "other")
    return await show(arena, transport, key.token(another(arena), {"kid": (None, "other", "ec")[next(arena.numbers) % 3]}))


@attack("unauthorized", over=EVERYWHERE)
async def a_key_used_in_another_way(arena: Arena, transport: str) -> str:
    """The issuer's own key, with an algorithm that is not that key's."""
    key = issuer_key(arena, "rsa")
    algorithm = ("RS512", "PS256", "RS384", "ES256", "EdDSA")[next(arena.numbers) % 5]
    return await show(arena, transport, key.token(another(arena), {"alg": algorithm}))


@attack("unauthorized", over=EVERYWHERE, tries=8)
async def a_token_for_somebody_else(arena: Arena, transport: str) -> str:
    """Issued for another resource, for one whose name begins like ours, or for nobody."""
    here = str(right_claims()["aud"])
    audiences: tuple[Any, ...] = ("https://other.example", f"{here}x", f"{here}.evil", here.upper(), "", [], None, {here: 1})
    audience = audiences[next(arena.numbers) % len(audiences)]
    return await show(arena, transport, issuer_key(arena).token(another(arena, aud=audience)))


@attack("unauthorized", over=EVERYWHERE, tries=6)
async def a_token_of_an_issuer_that_is_not_believed(arena: Arena, transport: str) -> str:
    """In the name of an issuer that is almost one of ours, or of several."""
    own = str(right_claims()["iss"])
    issuers: tuple[Any, ...] = (f"{own}/", own.upper(), f"{own}.evil", f"{own}@evil.example", [own], None, "")
    issuer = issuers[next(arena.numbers) % len(issuers)]
    return await show(arena, transport, issuer_key(arena).token(another(arena, iss=issuer)))


@attack("unauthorized", over=EVERYWHERE, tries=8)
async def a_token_out_of_its_time(arena: Arena, transport: str) -> str:
    """Expired, not valid yet, without an end, or with one that is no number."""
    now_s = int(time.time())
    times: tuple[dict[str, Any], ...] = (
        {"exp": now_s - 60},
        {"nbf": now_s + 600},
        {"exp": None},
        {"exp": str(now_s + 600)},
        {"exp": True},
        {"exp": 10**400},
        {"exp": [now_s + 600]},
        {"nbf": "0"},
    )
    return await show(arena, transport, issuer_key(arena).token(another(arena, **times[next(arena.numbers) % len(times)])))


@attack("unauthorized", over=EVERYWHERE, tries=6)
async def a_token_of_another_kind(arena: Arena, transport: str) -> str:
    """The issuer's own logout tokens, DPoP proofs, and tokens bound to a key or with something critical."""
    key, number = issuer_key(arena), next(arena.numbers) % 6
    headers = ({"typ": "logout+jwt"}, {"typ": "dpop+jwt"}, {"typ": "secevent+jwt"}, {"crit": ["x"]}, {"b64": False}, {})
    claims = {"cnf": {"jkt": "x"}} if number == 5 else {}
    return await show(arena, transport, key.token(another(arena, **claims), headers[number]))


@attack("unauthorized", over=EVERYWHERE, tries=5)
async def a_signature_in_another_form(arena: Arena, transport: str) -> str:
    """Signatures of an elliptic curve as DER, of zeros, cut, or longer."""
    key = issuer_key(arena)
    signed, _, own = key.token(another(arena)).rpartition(".")
    raw = base64.urlsafe_b64decode(own + "==")
    der = key.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    forms = (der, bytes(64), raw[:-1], raw + b"\0", raw[32:] + raw[:32])
    return await show(arena, transport, f"{signed}.{base64url(forms[next(arena.numbers) % len(forms)])}")


@attack("unauthorized", "invalid_request", over=EVERYWHERE, tries=4)
async def another_writing_of_a_token_that_was_revoked(arena: Arena, transport: str) -> str:
    """A revoked credential with padding, with unused bits set, and with the other signature that its holder can make."""
    token = str(arena.servers["revoked"])
    signed, _, own = token.rpartition(".")
    raw = base64.urlsafe_b64decode(own + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    bits = token[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[token[-1]]
    forms = (token, f"{token}=", f"{token}==", bits, f"{signed}.{base64url(twin)}")
    reads = {await show(arena, transport, form) for form in forms}
    assert reads == {"unauthorized"}, reads
    return reads.pop()


@attack("unauthorized", "invalid_request", "status 431", "too_large", over=EVERYWHERE, tries=4)
async def a_token_that_is_too_much(arena: Arena, transport: str) -> str:
    """Longer than any token, of JSON that nests without end, or of nothing but dots."""
    nested = compact(b"[" * 8_000, right_claims(), bytes(64))
    forms = (STRANGER.token({"x": "x" * 20_000}), nested, "." * 10_000, "A" * 60_000)
    return await show(arena, transport, forms[next(arena.numbers) % len(forms)])


@attack("invalid_request", over=EVERYWHERE)
async def two_tokens_in_one_request(arena: Arena, transport: str) -> str:
    """A right token beside a forged one, in two headers and in one."""
    right, forged = issuer_key(arena).token(another(arena)), STRANGER.token(another(arena))
    if next(arena.numbers) % 2:
        return await knock(arena, transport, f"Authorization: Bearer {right}", f"Authorization: Bearer {forged}")
    return await knock(arena, transport, f"Authorization: Bearer {right}, Bearer {forged}")


@attack("unauthorized", over=EVERYWHERE)
async def a_hash_in_place_of_its_key(arena: Arena, transport: str) -> str:
    """The hash of an API key as the configuration has it, its name, and its fingerprint."""
    digest = hashlib.sha256(b"key-of-ci").hexdigest()
    forms = (digest, f"sha256.{digest}", digest[:32], "ci", digest.upper())
    return await show(arena, transport, forms[next(arena.numbers) % len(forms)])


@on_both_bases(HARMLESS, tries=1, long_tries=20)
async def a_flood_of_keys_that_nobody_knows(arena: Arena) -> str:
    """Hundreds of tokens of keys that do not exist: who has a right one is served meanwhile."""

    async def flood(number: int) -> None:
        read = await show(arena, EVERYWHERE[0], STRANGER.token(another(arena), {"kid": f"new {number}"}))
        assert read in ("unauthorized", "too_many_connections"), read

    async def use() -> None:
        for _ in range(10):
            line = f"Authorization: Bearer {issuer_key(arena).token(another(arena))}"
            answer = await arena.another().post(PING, line)
            assert answer.status != 401, answer

    for first in range(0, 300, 30):
        await asyncio.gather(*(flood(number) for number in range(first, first + 30)))
    await asyncio.gather(use(), *(flood(number) for number in range(30)))
    return HARMLESS
