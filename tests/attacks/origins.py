"""Pages of other sites, and names that were made to point here."""

from __future__ import annotations

import json

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, attack
from tests.attacks.http_syntax import PING

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",
)
_ENDPOINTS = {
    "Streamable HTTP": ("POST", "/mcp", ()),
    "HTTP+SSE": ("GET", "/mcp/sse/connect", ()),
    "WebSocket": ("GET", "/mcp/ws", UPGRADE),
    "Phoenix channel": ("GET", "/mcp/websocket?vsn=2.0.0", UPGRADE),
    "topic stream": ("GET", "/mcp/sse/events/all", ()),
}
EVERYWHERE = tuple(_ENDPOINTS)
"""What pages of a browser can reach."""


async def knock(arena: Arena, transport: str, *lines: str, host: str | None = None) -> str:
    """What a page reads whose browser sends these headers."""
    verb, path, usual = _ENDPOINTS[transport]
    answer = await arena.post(PING if verb == "POST" else b"", *usual, *lines, verb=verb, path=path, host=host)
    assert answer.status == 403 or "evil" not in answer.head.lower(), f"it may read the answer: {answer.head}"
    return answer.reads


@attack("origin_forbidden", over=EVERYWHERE)
async def a_page_of_another_site(arena: Arena, transport: str) -> str:
    """A page of another site, by its Origin."""
    return await knock(arena, transport, "Origin: https://evil.example")


@attack("origin_forbidden", over=EVERYWHERE, tries=2)
async def a_page_without_an_origin_of_its_own(arena: Arena, transport: str) -> str:
    """A sandboxed frame or a local file: Origin null."""
    return await knock(arena, transport, "Origin: null")


@attack("origin_forbidden", "status 400", over=EVERYWHERE, tries=5)
async def a_host_that_looks_like_ours(arena: Arena, transport: str) -> str:
    """Hosts that begin or end like one that may."""
    hosts = ("localhost.evil.example", "127.0.0.1.evil.example", "evil.example.", "127.0.0.1.nip.io:80", "localhost-evil.example")
    return await knock(arena, transport, host=hosts[next(arena.numbers) % len(hosts)])


@attack("origin_forbidden", "invalid_request", "status 403", "status 404", "status 405", tries=3)
async def leave_asked_for_another_site(arena: Arena) -> str:
    """A preflight request of a page of another site."""
    lines = (
        "Origin: https://evil.example",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type",
    )
    answer = await arena.post(b"", *lines, verb="OPTIONS")
    assert "access-control-allow-origin" not in answer.head.lower(), answer.head
    return answer.reads


@attack("origin_forbidden", "invalid_request", tries=3)
async def a_form_of_another_site(arena: Arena) -> str:
    """A form, which a browser sends without asking: its content is no JSON by name."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "demo__echo", "arguments": {}}})
    wrong = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data")[next(arena.numbers) % 3]
    head = f"POST /mcp HTTP/1.1\r\nHost: {arena.host}\r\nContent-Type: {wrong}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (await arena.say(head.encode() + body.encode())).reads


@attack(HARMLESS, tries=2)
async def the_dashboard_in_a_frame(arena: Arena) -> str:
    """The dashboard in a frame of another site, or with scripts of another site."""
    answer = await arena.post(b"", verb="GET", path="/metrics/dashboard")
    policy = answer.head.lower()
    assert answer.status == 200, answer
    assert "frame-ancestors 'none'" in policy or "x-frame-options: deny" in policy, policy
    assert "default-src 'none'" in policy or "default-src 'self'" in policy, policy
    return HARMLESS


@attack("origin_forbidden", "status 400", "invalid_request", over=EVERYWHERE, tries=8)
async def an_origin_that_looks_like_ours(arena: Arena, transport: str) -> str:
    """Origins that begin, end or are written like one that may."""
    port = arena.gateway.port
    origins = (
        f"http://127.0.0.1:{port}.evil.example",
        "http://localhost.evil.example",
        "http://evil.example#localhost",
        f"http://evil.example:{port}",
        "http://localhost@evil.example",
        "http://evil.example/http://localhost",
        "evil://localhost.",
        "http://127.0.0.1.evil.example",
    )
    return await knock(arena, transport, f"Origin: {origins[next(arena.numbers) % len(origins)]}")


@attack("origin_forbidden", "status 400", "invalid_request", over=EVERYWHERE, tries=2)
async def two_origins(arena: Arena, transport: str) -> str:
    """An Origin that may beside one that may not."""
    return await knock(arena, transport, f"Origin: http://{arena.host}", "Origin: https://evil.example")


@attack("origin_forbidden", over=EVERYWHERE, tries=4)
async def a_name_that_points_here(arena: Arena, transport: str) -> str:
    """DNS rebinding: the Host of a site whose name was made to mean this machine, alone or with an Origin that is equal."""
    if next(arena.numbers) % 2:
        return await knock(arena, transport, host="evil.example")
    return await knock(
        arena, transport, f"Origin: http://evil.example:{arena.gateway.port}", host=f"evil.example:{arena.gateway.port}"
    )


@attack("origin_forbidden", "status 400", "invalid_request", over=EVERYWHERE, tries=2)
async def two_hosts(arena: Arena, transport: str) -> str:
    """A Host that may beside one that may not."""
    return await knock(arena, transport, "Host: evil.example")


@attack("origin_forbidden", over=EVERYWHERE, tries=2)
async def embedded_in_another_site(arena: Arena, transport: str) -> str:
    """What a page of another site embeds without an Origin: Sec-Fetch-Site says so."""
    return await knock(arena, transport, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image")


@attack("origin_forbidden", "status 400", "invalid_request", over=EVERYWHERE, tries=6)
async def a_host_that_is_none(arena: Arena, transport: str) -> str:
    """Hosts with a user before them, without a name, or with characters that none has."""
    hosts = ("localhost:1@evil.example", ":80", "localhost:x", "a b", "127.0.0.1:80/evil.example")
    return await knock(arena, transport, host=hosts[next(arena.numbers) % len(hosts)])


@attack("origin_forbidden", "forbidden", tries=6)
async def an_action_where_nobody_logs_in(arena: Arena) -> str:
    """What operators do on the dashboard, asked for by pages that a browser of this machine shows."""
    port = arena.gateway.port
    own = f"Origin: http://{arena.host}"
    proof = json.loads((await arena.post(b"", path="/metrics/actions", verb="GET")).body)["proof"]
    shown = f"Mcp-Gateway-Proof: {proof}"
    tries: tuple[tuple[tuple[str, ...], str | None], ...] = (
        ((own,), None),
        (("Origin: http://localhost:3000", "Sec-Fetch-Site: same-site", shown), None),
        (("Origin: https://evil.example", shown), None),
        ((f"Origin: http://evil.example:{port}", shown), f"evil.example:{port}"),
        ((own, "Sec-Fetch-Site: cross-site", shown), None),
        ((own, "X-Forwarded-For: 192.0.2.7", shown), None),
    )
    lines, host = tries[next(arena.numbers) % len(tries)]
    answer = await arena.post(b'{"command":"drain","name":"demo"}', *lines, path="/metrics/actions", host=host)
    state = json.loads((await arena.post(b"", verb="GET", path="/metrics/dashboard/state")).body)
    assert not any(backend["draining"] for backend in state["node"]["backends"]), "it has been done"
    return answer.reads
