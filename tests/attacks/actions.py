"""Something done in an operator's name, on the dashboard.

The operator's browser holds a cookie, which it shows whatever page of the same site has it send something.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from tests.attacks.arena import Arena
from tests.attacks.attack import attack, on_both_bases
from tests.attacks.principals import shown
from tests.attacks.surroundings import ADA, EVE, OPERATOR

_PATH = "/metrics/actions"
_DRAIN = json.dumps({"command": "drain", "name": "demo"}).encode()
_TWICE = 16_384


async def _cookie(arena: Arena) -> str:
    """What the operator's browser is given when it logs in."""
    form = urlencode({"credential": OPERATOR}).encode()
    answer = await arena.post(form, "Content-Type: application/x-www-form-urlencoded", path="/metrics/login")
    assert answer.status == 303, answer
    (line,) = (line for line in answer.head.split("\r\n") if line.lower().startswith("set-cookie:"))
    return f"Cookie: {line.partition(':')[2].partition(';')[0].strip()}"


async def _proof(arena: Arena, cookie: str) -> str:
    answer = await arena.post(b"", cookie, path=_PATH, verb="GET")
    assert answer.status == 200, answer
    return f"Mcp-Gateway-Proof: {json.loads(answer.body)['proof']}"


def _own_page(arena: Arena) -> str:
    return f"Origin: http://{arena.host}"


async def _tried(arena: Arena, *lines: str, body: bytes = _DRAIN, host: str | None = None) -> str:
    """What is read by who tries; the server takes traffic still."""
    answer = await arena.post(body, *lines, path=_PATH, host=host)
    state = json.loads((await arena.post(b"", *shown(OPERATOR), path="/metrics/dashboard/state", verb="GET")).body)
    assert not any(backend["draining"] for backend in state["node"]["backends"]), "it has been done"
    return answer.reads


@on_both_bases("origin_forbidden", tries=6)
async def an_action_from_another_site_with_the_cookie(arena: Arena) -> str:
    """A page of another site or port, or without an origin, with the operator's cookie and its proof."""
    cookie = await _cookie(arena)
    pages = (
        ("Origin: https://evil.example",),
        ("Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"),
        (f"Origin: https://{arena.host}:443",),
        ("Origin: null",),
        (_own_page(arena), "Sec-Fetch-Site: cross-site"),
        (),
    )
    return await _tried(arena, cookie, await _proof(arena, cookie), *pages[next(arena.numbers) % len(pages)])


@attack("forbidden", "origin_forbidden", tries=3)
async def an_action_by_a_form(arena: Arena) -> str:
    """A form that is sent with the cookie, and no header besides."""
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
    kind = kinds[next(arena.numbers) % len(kinds)]
    page = _own_page(arena) if next(arena.numbers) % 2 else "Origin: null"
    return await _tried(arena, await _cookie(arena), page, f"Content-Type: {kind}")


@on_both_bases("forbidden", tries=4)
async def an_action_without_the_proof_of_its_cookie(arena: Arena) -> str:
    """The cookie without a proof, with a forged one, with that of another cookie of the same operator, or with itself."""
    cookie, other = await _cookie(arena), await _cookie(arena)
    sealed = cookie.partition("=")[2]
    proofs = ("X: y", "Mcp-Gateway-Proof: forged", await _proof(arena, other), f"Mcp-Gateway-Proof: {sealed}")
    return await _tried(arena, cookie, proofs[next(arena.numbers) % len(proofs)], _own_page(arena))


@on_both_bases("unauthorized", "insufficient_scope", tries=4)
async def an_action_by_who_is_no_operator(arena: Arena) -> str:
    """Somebody known without the scope, somebody forged, and nobody, with the proof that an operator's page was given."""
    proof = await _proof(arena, await _cookie(arena))
    who = (shown(ADA), shown(EVE), shown("forged-key-0123456789"), ())
    return await _tried(arena, proof, _own_page(arena), *who[next(arena.numbers) % len(who)])


@attack("origin_forbidden", tries=2)
async def an_action_by_a_name_that_points_here(arena: Arena) -> str:
    """DNS rebinding, with all that an operator's page would have."""
    cookie = await _cookie(arena)
    host = f"evil.example:{arena.gateway.port}"
    return await _tried(arena, cookie, await _proof(arena, cookie), f"Origin: http://{host}", host=host)


@attack("too_large", "parse_error", "invalid_params", tries=6)
async def a_huge_or_odd_action(arena: Arena) -> str:
    """An action that is large, nested, of other types, or none that there is, from the operator itself."""
    bodies = (
        _DRAIN + b" " * _TWICE,
        b"[" * 8_000,
        b'{"command":{"drain":1}}',
        b'{"command":"kill","child":"cell/0","signal":"9"}',
        b'{"command":"revoke","subject":"*"}',
        b"",
    )
    return await _tried(arena, *shown(OPERATOR), body=bodies[next(arena.numbers) % len(bodies)])
