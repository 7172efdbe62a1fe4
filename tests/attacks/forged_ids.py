"""Ids and states that the gateway did not give, or gave to somebody else."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from mcp_gateway.transports.protocol.sealed.sealing import Seal
from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, SESSION, SSE, TALKING, WEBSOCKET, attack, on_both_bases
from tests.attacks.http_syntax import PING
from tests.attacks.speakers import ECHO, HttpSpeaker, read, speaker
from tests.end_to_end.raw_http import LEGACY

_VERBS = ("POST", "GET", "DELETE")


async def with_session(arena: Arena, session_id: str, path: str = "/mcp") -> str:
    """What is read by who uses this as a session, in each way that there is."""
    verb = _VERBS[next(arena.numbers) % 3]
    lines = (f"Mcp-Session-Id: {session_id}", f"MCP-Protocol-Version: {LEGACY}")
    return (await arena.post(PING if verb == "POST" else b"", *lines, verb=verb, path=path)).reads


@on_both_bases("session_not_found", tries=9)
async def a_session_that_was_made_up(arena: Arena) -> str:
    """A session id that nobody gave."""
    made_up = ("0", "a" * 400, "../../etc/passwd", "%00%0d%0a", "' OR 1=1 --", "{}", "null", "A" * 3_000, "-_" * 100)
    return await with_session(arena, made_up[next(arena.numbers) % len(made_up)])


@on_both_bases("session_not_found", tries=12)
async def a_session_with_one_character_changed(arena: Arena) -> str:
    """A session id with one character changed, one more or one less."""
    async with speaker(arena, SESSION) as client:
        own = client.headers["Mcp-Session-Id"]
        at = os.urandom(1)[0] % len(own)
        changed = (own[:at] + ("A" if own[at] != "A" else "B") + own[at + 1 :], own + "A", own[:-1], own + "=", own * 2)
        return await with_session(arena, changed[next(arena.numbers) % len(changed)])


@cache
def _seal_of_another() -> Seal:
    return Seal(b"the secret of another gateway")


@on_both_bases("session_not_found", tries=3)
async def a_session_of_another_gateway(arena: Arena) -> str:
    """A session id sealed by another gateway."""
    return await with_session(arena, _seal_of_another().seal("session", b"\x90"))


@on_both_bases("session_not_found", over=(SSE, WEBSOCKET, "another endpoint"), tries=3)
async def a_session_somewhere_else(arena: Arena, transport: str) -> str:
    """A session id of Streamable HTTP on another transport or another endpoint."""
    async with speaker(arena, SESSION) as client:
        own = client.headers["Mcp-Session-Id"]
        if transport == SSE:
            return (await arena.post(PING, path=f"/mcp/sse/messages?session_id={own}")).reads
        if transport == "another endpoint":
            return await with_session(arena, own, "/mcp/servers/demo")
        async with arena.http.ws_connect(arena.gateway.url + "/mcp/ws", headers={"Mcp-Session-Id": own}) as socket:
            await socket.send_str('{"jsonrpc":"2.0","id":1,"method":"tools/list"}')
            assert read(await socket.receive_json()) == "invalid_request"
            return "session_not_found"


@attack("too_large", "status 400", "session_not_found")
async def a_session_of_half_a_megabyte(arena: Arena) -> str:
    """A session id of half a megabyte."""
    return await with_session(arena, "A" * 500_000)


@on_both_bases("session_not_found", tries=6)
async def a_stream_of_nobody(arena: Arena) -> str:
    """Messages to a stream of HTTP+SSE that is not one's own: invented, altered, of another cell, or with line breaks."""
    async with speaker(arena, SSE) as client:
        own = (await client.address).partition("session_id=")[2]
        cell, _, rest = own.partition(".")
        wrong = ("x", f"{own}x", f"cell-7.{rest}", f"{cell}.{rest[:-1]}", "a%0d%0aSet-Cookie:%20a=b", "")
        answer = await arena.post(PING, path=f"/mcp/sse/messages?session_id={wrong[next(arena.numbers) % len(wrong)]}")
        assert "set-cookie" not in answer.head.lower()
        assert client.heard == [], "it reached somebody's stream"
    return "session_not_found" if answer.reads in ("session_not_found", "invalid_request") else answer.reads


@attack("session_not_found")
async def a_session_that_has_ended(arena: Arena) -> str:
    """A session id after its DELETE."""
    async with speaker(arena, SESSION) as client:
        own = client.headers["Mcp-Session-Id"]
    return await with_session(arena, own)


@on_both_bases("invalid_params", "error -32602", tries=6)
async def a_state_of_nobody(arena: Arena) -> str:
    """A retry with a requestState that was invented, altered, or sealed for something else."""
    client = HttpSpeaker(arena, {})
    asked = await client.ask("tools/call", {"name": "asks__elicit", "arguments": {}, "_meta": CAN_BE_ASKED})
    if "error" in asked:
        return read(asked)
    own = asked["result"]["requestState"]
    at = os.urandom(1)[0] % len(own)
    wrong = (
        own[:at] + ("A" if own[at] != "A" else "B") + own[at + 1 :],
        "nothing",
        own + "A",
        _seal_of_another().seal("call", b"\x90"),
        own[:-2],
        "A" * 100_000,
    )
    return await refused_until_it_is_its_own(client, asked, wrong[next(arena.numbers) % len(wrong)], "asks__elicit")


@on_both_bases("invalid_params", "error -32602", tries=3)
async def a_state_of_another_call(arena: Arena) -> str:
    """A retry of one tool with the requestState of another."""
    client = HttpSpeaker(arena, {})
    asked = await client.ask("tools/call", {"name": "asks__elicit", "arguments": {}, "_meta": CAN_BE_ASKED})
    if "error" in asked:
        return read(asked)
    return await refused_until_it_is_its_own(client, asked, asked["result"]["requestState"], "asks__echo")


async def refused_until_it_is_its_own(client: HttpSpeaker, asked: Any, state: str, tool: str) -> str:
    """What is read of the retry; the call itself waits on meanwhile, and ends with an answer under its own state."""
    found = await retried(client, asked, state, tool)
    own = await retried(client, asked, asked["result"]["requestState"], "asks__elicit")
    return found if own == "answered" else own


CAN_BE_ASKED = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}}


async def retried(client: HttpSpeaker, asked: Any, state: str, tool: str) -> str:
    questions = asked["result"]["inputRequests"]
    answers = {name: {"action": "accept", "content": {"name": "Eve"}} for name in questions}
    retry = {"name": tool, "arguments": {}, "requestState": state, "inputResponses": answers, "_meta": CAN_BE_ASKED}
    return read(await client.ask("tools/call", retry))


@on_both_bases("invalid_params", "error -32602", over=TALKING, tries=5)
async def a_cursor_that_was_made_up(arena: Arena, transport: str) -> str:
    """A page of a list by a cursor that nobody gave."""
    wrong = ("x", "A" * 10_000, "../..", "\r\nX: y", "-1")
    async with speaker(arena, transport) as client:
        return read(await client.ask("tools/list", {"cursor": wrong[next(arena.numbers) % len(wrong)]}))


@on_both_bases(
    "invalid_params", "error -32602", "unknown_method", "error -32601", "missing_capability", "header_mismatch",
    over=TALKING, tries=5,
)  # fmt: skip
async def a_task_of_somebody_else(arena: Arena, transport: str) -> str:
    """The result of a task by an id that was invented, or sealed by another gateway."""
    wrong = ("1", "task-1", _seal_of_another().seal("task", b"\x90"), "A" * 100_000, "../1")
    async with speaker(arena, transport) as client:
        return read(await client.ask("tasks/get", {"taskId": wrong[next(arena.numbers) % len(wrong)]}))


@attack("invalid_params", "status 400", "too_large", tries=8)
async def a_last_event_that_was_made_up(arena: Arena) -> str:
    """A topic's stream from an id that is none."""
    wrong = ("-1", "1e9", "0x10", "1.5", "nine", "9" * 5_000, "\uff11", "1;2")
    answer = await arena.post(
        b"", f"Last-Event-ID: {wrong[next(arena.numbers) % len(wrong)]}", verb="GET", path="/mcp/sse/events/all"
    )
    return answer.reads


@on_both_bases(HARMLESS, tries=4)
async def a_last_event_of_somebodys_session(arena: Arena) -> str:
    """The stream of one's own session from an event of another one: nothing of the other session comes."""
    wrong = ("1", "0", "999999999", "cell-0/1/1")
    async with speaker(arena, SESSION) as victim, speaker(arena, SESSION) as client:
        assert read(await victim.ask("tools/call", ECHO)) == "answered"
        lines = [f"{name}: {value}" for name, value in client.headers.items()]
        answer = await arena.post(b"", *lines, f"Last-Event-ID: {wrong[next(arena.numbers) % len(wrong)]}", verb="GET")
    assert b"jsonrpc" not in answer.body or answer.status != 200, answer
    return HARMLESS


@on_both_bases("session_not_found", "status 400", "invalid_request", tries=3)
async def a_header_with_line_breaks(arena: Arena) -> str:
    """A session id with encoded line breaks and a header behind them."""
    return await with_session(arena, "a%0d%0aX-Injected:%20b")
