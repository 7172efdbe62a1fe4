"""What belongs to another principal, or to operators.

Ada and Eve are known by API keys; Eve attacks, and so does somebody who shows none, where that is served.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from mcp_gateway.transports.protocol.sealed.sealing import Seal
from tests.attacks.arena import Arena, reason_in
from tests.attacks.attack import HARMLESS, PHOENIX, SESSION, SSE, STATELESS, WEBSOCKET, attack, on_both_bases
from tests.attacks.forged_ids import CAN_BE_ASKED, retried
from tests.attacks.http_syntax import PING
from tests.attacks.speakers import ECHO, JSON_HEADERS, HttpSpeaker, read, speaker
from tests.attacks.surroundings import ADA, EVE, OPERATOR
from tests.end_to_end.raw_http import LEGACY, modern, request
from tests.end_to_end.task_client import EXTENSION

_TOPICS = "topic stream"
_HANDSHAKES = (WEBSOCKET, PHOENIX, SSE, _TOPICS)
_PATHS = {
    WEBSOCKET: "/mcp/ws",
    PHOENIX: "/mcp/websocket?vsn=2.0.0",
    SSE: "/mcp/sse/connect",
    _TOPICS: "/mcp/sse/events/client.a",
}
_THIEVES = (EVE, "", OPERATOR)


def shown(key: str) -> tuple[str, ...]:
    return (f"Authorization: Bearer {key}",) if key else ()


def next_thief(arena: Arena) -> str:
    return _THIEVES[next(arena.numbers) % len(_THIEVES)]


# ---- sessions


@on_both_bases("session_not_found", over=("POST", "GET", "DELETE"), tries=6)
async def the_session_of_another_principal(arena: Arena, verb: str) -> str:
    """The session id of another principal, from one with a key, from nobody and from an operator."""
    async with arena.known_as(ADA) as ada, speaker(ada, SESSION) as victim:
        lines = (f"Mcp-Session-Id: {victim.headers['Mcp-Session-Id']}", f"MCP-Protocol-Version: {LEGACY}")
        answer = await arena.post(PING if verb == "POST" else b"", *lines, *shown(next_thief(arena)), verb=verb)
        assert read(await victim.ask("tools/call", ECHO)) == "answered", "it lives on"
        return answer.reads


@on_both_bases("session_not_found", tries=3)
async def a_session_of_nobody_in_particular(arena: Arena) -> str:
    """The session id of somebody without a key, from a principal."""
    async with arena.known_as("") as nobody, speaker(nobody, SESSION) as victim:
        return (await arena.post(PING, f"Mcp-Session-Id: {victim.headers['Mcp-Session-Id']}", *shown(EVE))).reads


@on_both_bases("session_not_found", tries=3)
async def a_batch_in_the_session_of_another_principal(arena: Arena) -> str:
    """A batch of calls in the session of another principal."""
    async with arena.known_as(ADA) as ada, speaker(ada, SESSION, protocolVersion="2025-03-26") as victim:
        lines = (f"Mcp-Session-Id: {victim.headers['Mcp-Session-Id']}", *shown(next_thief(arena)))
        return (await arena.post(b"[%b,%b]" % (PING, PING.replace(b"1", b"2")), *lines)).reads


@on_both_bases("session_not_found", tries=3)
async def the_stream_of_another_principal_is_resumed(arena: Arena) -> str:
    """Last-Event-ID in the session of another principal."""
    async with arena.known_as(ADA) as ada, speaker(ada, SESSION) as victim:
        lines = (f"Mcp-Session-Id: {victim.headers['Mcp-Session-Id']}", "Last-Event-ID: 1", "Accept: text/event-stream")
        return (await arena.post(b"", *lines, *shown(next_thief(arena)), verb="GET")).reads


@on_both_bases("session_not_found", tries=3)
async def a_name_in_the_query_or_in_a_header_is_no_identity(arena: Arena) -> str:
    """The session of another principal, with its name as user_id and in the header that a trusted proxy would set."""
    async with arena.known_as(ADA) as ada, speaker(ada, SESSION) as victim:
        lines = (f"Mcp-Session-Id: {victim.headers['Mcp-Session-Id']}", "X-Forwarded-User: ada", "X-Forwarded-For: 127.0.0.1")
        return (await arena.post(PING, *lines, *shown(EVE), path="/mcp?user_id=api-key%20ada")).reads


@on_both_bases("session_not_found", tries=6)
async def a_message_to_the_stream_of_another_principal(arena: Arena) -> str:
    """A POST to the HTTP+SSE stream of another principal, in its cell and in the other one."""
    async with arena.known_as(ADA) as ada, speaker(ada, SSE) as victim:
        address = (await victim.address).removeprefix(arena.gateway.url)
        answer = await arena.post(PING, *shown(next_thief(arena)), path=address)
        await victim.ask("tools/list")
        assert not [each for each in victim.heard if "method" not in each], f"told to its principal: {victim.heard}"
        return answer.reads


# ---- calls that wait


@on_both_bases("forbidden", "invalid_params", "error -32602", over=(STATELESS,), tries=3)
async def the_request_state_of_another_principal(arena: Arena, transport: str) -> str:
    """An answer to what a server has asked another principal, with the requestState that it was given."""
    async with arena.known_as(ADA) as ada, arena.known_as(next_thief(arena)) as thief:
        asked = await HttpSpeaker(ada, {}).ask("tools/call", {"name": "asks__elicit", "arguments": {}, "_meta": CAN_BE_ASKED})
        assert "result" in asked, asked
        state = asked["result"]["requestState"]
        found = await retried(HttpSpeaker(thief, {}), asked, state, "asks__elicit")
        assert await retried(HttpSpeaker(ada, {}), asked, state, "asks__elicit") == "answered", "it still waits for its own"
        return found


_KNOWS_TASKS = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "extensions": {EXTENSION: {}}}}


async def asked_of_task(arena: Arena, method: str, params: dict[str, Any]) -> Any:
    """The answer to a request about a task, or that begins one, in the stateless revision."""
    body, headers = modern(request(method, {**params, "_meta": _KNOWS_TASKS}))
    headers["Mcp-Name"] = params.get("taskId") or params["name"]
    async with arena.http.post(f"{arena.gateway.url}/mcp", json=body, headers={**JSON_HEADERS, **headers}) as answer:
        return json.loads(await answer.read())


@on_both_bases("invalid_params", "error -32602", "forbidden", tries=6)
async def a_task_of_another_principal(arena: Arena) -> str:
    """The state, the cancellation and the input of a task of another principal."""
    method = ("tasks/get", "tasks/cancel", "tasks/update")[next(arena.numbers) % 3]
    async with arena.known_as(ADA) as ada, arena.known_as(next_thief(arena)) as thief:
        slow = {"name": "demo__slow", "arguments": {"seconds": 2}}
        task_id = (await asked_of_task(ada, "tools/call", slow))["result"]["taskId"]
        more = {"inputResponses": {}} if method == "tasks/update" else {}
        found = read(await asked_of_task(thief, method, {"taskId": task_id, **more}))
        own = await asked_of_task(ada, "tasks/get", {"taskId": task_id})
        assert own["result"]["status"] in ("working", "completed"), own
        return found


# ---- tickets


async def ticket_of(arena: Arena, key: str) -> str:
    answer = await arena.post(b"", *shown(key), path="/mcp/ticket")
    assert answer.status == 200, answer
    return str(json.loads(answer.body)["ticket"])


async def shaken_hands(arena: Arena, transport: str, ticket: str, stack: AsyncExitStack) -> str:
    """What is read by who opens this transport with a ticket: "opened", or why not. What is open stays so on the stack."""
    path = _PATHS[transport]
    page = await stack.enter_async_context(arena.known_as(""))
    url = f"{arena.gateway.url}{path}{'&' if '?' in path else '?'}ticket={ticket}"
    if transport in (WEBSOCKET, PHOENIX):
        try:
            socket = await page.http.ws_connect(url)
        except aiohttp.WSServerHandshakeError as error:
            return {401: "unauthorized"}.get(error.status, f"status {error.status}")
        stack.push_async_callback(socket.close)
        return "opened"
    answer = await stack.enter_async_context(page.http.get(url))
    return "opened" if answer.status == 200 else reason_in(await answer.read())


@on_both_bases("unauthorized", over=_HANDSHAKES, tries=4)
async def a_ticket_that_was_used(arena: Arena, transport: str) -> str:
    """A ticket that was read on its way, after its page has used it."""
    async with AsyncExitStack() as stack:
        ticket = await ticket_of(arena, ADA)
        assert await shaken_hands(arena, transport, ticket, stack) == "opened"
        return await shaken_hands(arena, transport, ticket, stack)


@on_both_bases(HARMLESS, over=_HANDSHAKES, tries=3)
async def a_ticket_used_by_many_at_once(arena: Arena, transport: str) -> str:
    """Ten handshakes with one ticket at once, in all cells."""
    async with AsyncExitStack() as stack:
        ticket = await ticket_of(arena, ADA)
        found = await asyncio.gather(*(shaken_hands(arena, transport, ticket, stack) for _ in range(10)))
        assert sorted(found) == ["opened", *["unauthorized"] * 9], found
        return HARMLESS


@on_both_bases("unauthorized", over=_HANDSHAKES, tries=6)
async def a_ticket_that_nobody_gave(arena: Arena, transport: str) -> str:
    """A ticket that was made up, altered, of another gateway, or is a session id."""
    async with AsyncExitStack() as stack, arena.known_as(EVE) as eve, speaker(eve, SESSION) as client:
        own = await ticket_of(arena, EVE)
        made_up = (
            "a" * 80,
            own[:-1] + ("A" if own[-1] != "A" else "B"),
            own + "=",
            Seal(b"the secret of another gateway").seal("ticket", b"\x93\xa6cell/0\xa1k\xcf\x0f\xff\xff\xff\xff\xff\xff\xff"),
            client.headers["Mcp-Session-Id"],
            EVE,
        )
        return await shaken_hands(arena, transport, made_up[next(arena.numbers) % len(made_up)], stack)


@attack("session_not_found", "status 405", "unauthorized", "invalid_request", over=("POST", "GET", "DELETE"), tries=3)
async def a_ticket_instead_of_a_token(arena: Arena, verb: str) -> str:
    """A ticket of Ada in the address of a request that has headers, for her session."""
    async with arena.known_as(ADA) as ada, speaker(ada, SESSION) as victim:
        line = f"Mcp-Session-Id: {victim.headers['Mcp-Session-Id']}"
        path = f"/mcp?ticket={await ticket_of(arena, ADA)}"
        return (await arena.post(PING if verb == "POST" else b"", line, path=path, verb=verb)).reads


@attack(HARMLESS, tries=1, long_tries=2)
async def tickets_without_end(arena: Arena) -> str:
    """Tickets that nobody uses, two thousand of them."""
    # Of one who asks for no ticket in another attack: for thirty seconds it gets none.
    refused = 0
    for _ in range(20):
        some = await asyncio.gather(*(arena.post(b"", *shown(OPERATOR), path="/mcp/ticket") for _ in range(100)))
        refused += sum(each.reads == "rate_limited" for each in some)
    assert refused >= 900, refused
    async with AsyncExitStack() as stack:
        assert await shaken_hands(arena, WEBSOCKET, await ticket_of(arena, ADA), stack) == "opened", "others still get theirs"
    return HARMLESS


# ---- credentials where they do not belong


@attack("invalid_request", over=("POST", *_HANDSHAKES), tries=3)
async def a_token_in_the_address(arena: Arena, transport: str) -> str:
    """A good key as access_token in the query."""
    path = _PATHS.get(transport, "/mcp")
    name = ("access_token", "access%5Ftoken", "%61ccess_token")[next(arena.numbers) % 3]
    path += f"{'&' if '?' in path else '?'}{name}={ADA}"
    return (
        await arena.post(PING if transport == "POST" else b"", path=path, verb="POST" if transport == "POST" else "GET")
    ).reads


@attack("invalid_request", tries=4)
async def two_tokens(arena: Arena) -> str:
    """Two keys in one request: as two headers, or in one."""
    twice = (
        (f"Authorization: Bearer {ADA}", f"Authorization: Bearer {EVE}"),
        (f"Authorization: Bearer {EVE}", f"authorization: bearer {ADA}"),
        (f"Authorization: Bearer {ADA}, Bearer {EVE}",),
        (f"Authorization: Bearer {ADA} {EVE}",),
    )
    return (await arena.post(PING, *twice[next(arena.numbers) % len(twice)])).reads


@attack("unauthorized", "invalid_request", "closed", tries=6)
async def keys_that_are_no_keys(arena: Arena) -> str:
    """Tokens without end, of odd characters, nearly right ones."""
    wrong = (
        b"A" * 60_000,
        b"\xff\xfe",
        ADA[:-1].encode(),
        f"{ADA}=".encode(),
        b"..",
        b"null",
        b"eyJhbGciOiJub25lIn0.e30.",
        b"%00",
    )
    token = wrong[next(arena.numbers) % len(wrong)]
    head = f"POST /mcp HTTP/1.1\r\nHost: {arena.host}\r\nContent-Length: {len(PING)}\r\nAuthorization: Bearer ".encode()
    return (await arena.say(head + token + b"\r\n\r\n" + PING)).reads


@attack(HARMLESS, tries=1, long_tries=3, at_once=1)
async def keys_are_guessed(arena: Arena) -> str:
    """Five hundred wrong keys at once: none is taken, and all others are served meanwhile."""
    answers = await asyncio.gather(*(arena.post(PING, *shown(f"guess-{number}")) for number in range(500)))
    reads = {each.reads for each in answers}
    assert reads <= {"unauthorized", "too_many_connections"}, reads
    return HARMLESS


# ---- what is for operators


@on_both_bases("insufficient_scope", "unauthorized", "invalid_params", over=(_TOPICS, PHOENIX), tries=7)
async def topics_of_the_gateway(arena: Arena, transport: str) -> str:
    """Topics that are not of clients, by name, by wildcard, and by spellings of both."""
    names = ("all", "*", "mcp.*", "vsm.*", "vsm.algedonic.pain", "client", "clien.*", "CLIENT.*", "client.*,all")
    name = names[next(arena.numbers) % len(names)]
    if transport == _TOPICS:
        spelled = name if next(arena.numbers) % 2 else "".join(f"%{ord(each):02x}" for each in name)
        key = (EVE, "")[next(arena.numbers) % 2]
        return (await arena.post(b"", *shown(key), path=f"/mcp/sse/events/{spelled}", verb="GET")).reads
    async with arena.known_as(EVE) as eve:
        socket = await eve.http.ws_connect(f"{arena.gateway.url}/mcp/websocket?vsn=2.0.0")
        async with socket:
            await socket.send_str(json.dumps(["1", "1", f"mcp:{name}", "phx_join", {}]))
            told: Any = json.loads((await socket.receive(timeout=10)).data)
            return str(told[4]["response"].get("reason", told[4]["status"]))


@on_both_bases("insufficient_scope", "unauthorized", "status 404", tries=8)
async def pages_of_operators(arena: Arena) -> str:
    """Metrics, history and dashboard without the scope, under any spelling of their paths."""
    paths = ("/metrics", "/metrics/", "/metrics//", "/%6detrics", "/metrics?a", "/./metrics", "/mcp/../metrics", "/METRICS")
    more = ("/health/history", "/metrics/dashboard", "/metrics/dashboard/state", "/metrics/dashboard/../../metrics")
    path = (*paths, *more)[next(arena.numbers) % (len(paths) + len(more))]
    answer = await arena.post(b"", *shown((EVE, "")[next(arena.numbers) % 2]), path=path, verb="GET")
    assert b"mcp_gateway_" not in answer.body
    return answer.reads


@attack(HARMLESS, tries=4)
async def the_challenge_of_a_refusal_is_written_by_its_client(arena: Arena) -> str:
    """Quotes and line ends in the address of a server, a foreign Host and forwarded names, in what leads clients to log in."""
    tricks = (
        ('/mcp/servers/a",scope="admin', ()),
        ("/mcp/servers/a%0d%0aX-Evil:1", ()),
        ("/mcp", ("X-Forwarded-Host: evil.example", "Forwarded: host=evil.example")),
        ("/mcp/servers/a\\", ()),
    )
    path, lines = tricks[next(arena.numbers) % len(tricks)]
    answer = await arena.post(PING, *lines, *shown("wrong"), path=path)
    (said,) = [line for line in answer.head.split("\r\n") if line.lower().startswith("www-authenticate:")]
    assert "admin" not in said, said
    assert "evil" not in said, said
    assert said.count('"') % 2 == 0, said
    return HARMLESS
