"""Tokens where they are not good, and logouts that no issuer has said."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, attack, on_both_bases
from tests.attacks.forged_tokens import STRANGER, another, issuer_key, show
from tests.attacks.http_syntax import PING
from tests.attacks.origins import EVERYWHERE
from tests.attacks.surroundings import API_KEY
from tests.doubles.tokens import PUBLIC_URL, base64url, compact, logout_claims, right_claims

_LOGOUT = "/mcp/oauth/logout"
_NOT_SAID = "status 400"
_EVENT = "http://schemas.openid.net/event/backchannel-logout"


async def say(arena: Arena, *tokens: str) -> str:
    """What is read by who sends the form of a logout."""
    return (await arena.post(urlencode([("logout_token", token) for token in tokens]).encode(), path=_LOGOUT)).reads


def logout(arena: Arena, **claims: Any) -> dict[str, Any]:
    return {**logout_claims(time.time()), **another(arena), "sub": f"victim {arena.address}", **claims}


def typed(**members: Any) -> dict[str, Any]:
    return {"typ": "logout+jwt", **members}


async def serves(arena: Arena, **claims: Any) -> bool:
    """Whether a token of the victim is good still."""
    own = {"sub": f"victim {arena.address}", "iat": time.time() - 5, **claims}
    token = issuer_key(arena).token(another(arena, **own))
    return (await arena.another().post(PING, f"Authorization: Bearer {token}")).status != 401


@attack(_NOT_SAID, tries=6)
async def a_logout_that_nobody_has_signed(arena: Arena) -> str:
    """Logout tokens without a signature, of a stranger's key, of another issuer's key, and two in one form."""
    other = issuer_key(arena, "other")
    forms = (
        [compact({"alg": "none", "typ": "logout+jwt"}, logout(arena), b"")],
        [STRANGER.token(logout(arena), typed())],
        [STRANGER.token(logout(arena), typed(jwk=STRANGER.jwk()))],
        [other.token(logout(arena), typed(kid="ec"))],
        [issuer_key(arena).token(logout(arena), typed())] * 2,
        [],
    )
    read = await say(arena, *forms[next(arena.numbers) % len(forms)])
    assert await serves(arena)
    return read


@attack(_NOT_SAID, tries=8)
async def a_token_of_another_kind_as_a_logout(arena: Arena) -> str:
    """The issuer's own access tokens, ID tokens, and events of another kind, sent as logouts."""
    key, aud = issuer_key(arena), {"aud": "gateway"}
    forms = (
        key.token(another(arena, **aud)),
        key.token(another(arena, **aud), typed()),
        key.token(logout(arena), {"typ": "at+jwt"}),
        key.token(logout(arena, nonce="n"), typed()),
        key.token(logout(arena, events={_EVENT.upper(): {}}), typed()),
        key.token(logout(arena, events=_EVENT), typed()),
        key.token(logout(arena), typed(crit=["x"])),
        key.token(logout(arena, sub=None), typed()),
    )
    read = await say(arena, forms[next(arena.numbers) % len(forms)])
    assert await serves(arena)
    return read


@attack(_NOT_SAID, tries=8)
async def a_logout_for_somebody_else_or_of_another_time(arena: Arena) -> str:
    """Logouts for another client, for the gateway's own address, of yesterday, of tomorrow, and without a time or a name."""
    now_s = time.time()
    changes: tuple[dict[str, Any], ...] = (
        {"aud": "another"},
        {"aud": f"{PUBLIC_URL}/mcp"},
        {"aud": []},
        {"iat": now_s - 3_600},
        {"iat": now_s + 3_600},
        {"iat": None},
        {"exp": now_s - 60},
        {"jti": None},
    )
    read = await say(arena, issuer_key(arena).token(logout(arena, **changes[next(arena.numbers) % len(changes)]), typed()))
    assert await serves(arena)
    return read


@on_both_bases(_NOT_SAID, tries=4)
async def a_logout_once_more(arena: Arena) -> str:
    """A logout that was heard, sent again after the next login, to any cell: that login is good still."""
    number = next(arena.numbers)
    subject = f"again {arena.address} {number}"
    token = issuer_key(arena).token(logout(arena, sub=subject, iat=time.time() - 30), typed())
    assert await say(arena, token) == "status 200"
    reads = {await say(arena.another(), token) for _ in range(4)}
    assert reads == {_NOT_SAID}, reads
    assert await serves(arena, sub=subject)
    return reads.pop()


@on_both_bases(HARMLESS, tries=2)
async def a_logout_by_an_issuer_of_somebody_elses_subject(arena: Arena) -> str:
    """One issuer logs out a subject that another one has by the same name."""
    other = issuer_key(arena, "other")
    assert await say(arena, other.token(logout(arena, iss="https://other.example"), typed())) == "status 200"
    assert await serves(arena)
    return HARMLESS


@attack("unauthorized", over=EVERYWHERE)
async def a_token_of_before_a_logout(arena: Arena, transport: str) -> str:
    """Any token that was issued to somebody before the logout, and one that does not say when."""
    number = next(arena.numbers)
    subject = f"gone {arena.address} {transport} {number}"
    assert await say(arena, issuer_key(arena).token(logout(arena, sub=subject), typed())) == "status 200"
    moments = (time.time() - 5, time.time() - 3_600, None, 0)
    claims = another(arena, sub=subject, iat=moments[number % len(moments)])
    return await show(arena, transport, issuer_key(arena).token(claims))


@attack("unauthorized", over=EVERYWHERE)
async def a_logout_as_an_access_token(arena: Arena, transport: str) -> str:
    """A logout token that would pass for an access token, by its audience, scopes and type."""
    claims = right_claims() | logout(arena, aud=f"{PUBLIC_URL}/mcp")
    return await show(arena, transport, issuer_key(arena).token(claims, {"typ": ("JWT", "at+jwt")[next(arena.numbers) % 2]}))


@attack("unauthorized", over=EVERYWHERE, tries=6)
async def a_token_for_another_server(arena: Arena, transport: str) -> str:
    """Made out to one server of the gateway, shown to another one, and to all of them as one."""
    servers = ("other", "demo", "demo/", "demo%2F..", "..", "*")
    audience = f"{PUBLIC_URL}/mcp/servers/{servers[next(arena.numbers) % len(servers)]}"
    return await show(arena, transport, issuer_key(arena).token(another(arena, aud=audience)))


@attack("unauthorized", "status 404", "invalid_request", "no_backend", tries=8)
async def a_token_for_a_server_by_another_way(arena: Arena) -> str:
    """A token for one server at addresses that could be taken for that server's: by the query, encoded, with dots and slashes."""
    token = issuer_key(arena).token(another(arena, aud=f"{PUBLIC_URL}/mcp/servers/mine"))
    paths = (
        "/mcp?backend=mine",
        "/mcp/servers/demo?backend=mine",
        "/mcp/servers/mine/../demo",
        "/mcp/servers/mine%2F..%2Fdemo",
        "/mcp/servers/demo/mine",
        "//mcp/servers/demo",
        "/mcp/?backend=mine",
        "/mcp/servers/mine",
    )
    answer = await arena.post(PING, f"Authorization: Bearer {token}", path=paths[next(arena.numbers) % len(paths)])
    assert b'"result"' not in answer.body, answer
    return answer.reads


@attack("unauthorized", over=EVERYWHERE, tries=6)
async def a_token_that_is_bound_to_what_nobody_shows(arena: Arena, transport: str) -> str:
    """Bound to a certificate or a key: without it, and beside a header in which somebody claims to have it."""
    confirmations: tuple[dict[str, Any], ...] = (
        {"x5t#S256": base64url(bytes(32))},
        {"x5t#S256": ""},
        {"jkt": "x"},
        {"x5t#S256": base64url(bytes(32)), "jwk": {}},
        {},
        {"kid": "ec"},
    )
    confirmation = confirmations[next(arena.numbers) % len(confirmations)]
    return await show(arena, transport, issuer_key(arena).token(another(arena, cnf=confirmation)))


@attack("unauthorized", "origin_forbidden", tries=8)
async def an_operators_cookie(arena: Arena) -> str:
    """One that was made up or altered, a right one outside the operators' pages or for writing, and a login from another site."""
    form = urlencode({"credential": API_KEY}).encode()
    lines = (await arena.post(form, path="/metrics/login")).head.splitlines()
    given = next(line for line in lines if line.lower().startswith("set-cookie"))
    cookie = given.partition(": ")[2].partition(";")[0]
    assert (await arena.post(b"", f"Cookie: {cookie}", path="/metrics", verb="GET")).status == 200
    name, _, sealed = cookie.partition("=")
    number = next(arena.numbers) % 8
    if number == 0:
        answer = await arena.post(form, "Origin: https://evil.example", path="/metrics/login")
        assert "set-cookie" not in answer.head.lower(), answer
        return answer.reads
    path, verb, shown = (
        ("/metrics", "GET", f"{name}={sealed[:-2]}AA"),
        ("/metrics", "GET", f"{name}={API_KEY}"),
        ("/metrics", "POST", cookie),
        ("/metrics/dashboard/state", "GET", f"{name}={base64url(bytes(64))}"),
        ("/mcp/ticket", "POST", cookie),
        ("/metrics/dashboard/state", "GET", ""),
        ("/mcp/sse/events/all", "GET", cookie),
    )[number - 1]
    return (await arena.post(b"", f"Cookie: {shown}", path=path, verb=verb)).reads
