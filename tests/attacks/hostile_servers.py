"""Servers that mean harm to the gateway, to their clients and to each other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, SESSION, STATELESS, WEBSOCKET, attack, on_both_bases
from tests.attacks.hostile_upstream import SECRET, TURNED
from tests.attacks.shown import assert_clean
from tests.attacks.speakers import read, speaker

CALLERS = (SESSION, STATELESS, WEBSOCKET)
_ONE = (SESSION,)


async def called(arena: Arena, transport: str, tool: str, backend: str = "evil") -> Any:
    """What a client of a hostile tool is answered; never with what the backend's configuration keeps."""
    async with speaker(arena, transport) as client:
        answer = await client.ask("tools/call", {"name": f"{backend}__{tool}", "arguments": {}})
        assert SECRET not in str(answer), answer
        return answer


@attack("upstream_failed", over=CALLERS, tries=3)
async def an_answer_of_eight_megabytes(arena: Arena, transport: str) -> str:
    """An answer of twice the bytes that a message may have."""
    return read(await called(arena, transport, "huge"))


@attack("upstream_failed", "upstream_timeout", over=_ONE, tries=3)
async def a_line_without_end(arena: Arena, transport: str) -> str:
    """An event stream whose first line never ends."""
    return read(await called(arena, transport, "line_without_end"))


@attack("upstream_timeout", over=CALLERS, tries=2, at_once=8, long_tries=40)
async def comments_without_end(arena: Arena, transport: str) -> str:
    """An event stream of comments only."""
    return read(await called(arena, transport, "comments_without_end"))


@attack("upstream_timeout", over=CALLERS, tries=2, at_once=8, long_tries=40)
async def messages_without_end(arena: Arena, transport: str) -> str:
    """Log messages without end, and never an answer."""
    return read(await called(arena, transport, "progress_without_end"))


@attack("upstream_timeout", over=_ONE, tries=2, at_once=8, long_tries=40)
async def an_answer_byte_by_byte(arena: Arena, transport: str) -> str:
    """An answer of which a byte comes now and then."""
    return read(await called(arena, transport, "byte_by_byte"))


@attack("upstream_failed", over=_ONE, tries=2, long_tries=40)
async def an_answer_that_unpacks_to_much(arena: Arena, transport: str) -> str:
    """An answer of 100 kB that unpacks to 100 MB."""
    return read(await called(arena, transport, "bomb"))


@attack("upstream_failed", "answered", over=_ONE, tries=3)
async def an_answer_nested_without_end(arena: Arena, transport: str) -> str:
    """An answer nested a hundred thousand deep."""
    return read(await called(arena, transport, "deep"))


@attack("upstream_failed", over=_ONE, tries=3)
async def an_answer_that_is_no_text(arena: Arena, transport: str) -> str:
    """An answer with bytes that are no UTF-8."""
    return read(await called(arena, transport, "no_characters"))


@on_both_bases("upstream_failed", over=CALLERS, tries=3)
async def sent_to_another_address(arena: Arena, transport: str) -> str:
    """A redirect to an address inside the network: nobody goes there."""
    answer = read(await called(arena, transport, "elsewhere"))
    assert arena.servers["inside"].connections == 0, "it was followed"
    return answer


@attack("upstream_failed", over=_ONE, tries=3)
async def sent_in_a_circle(arena: Arena, transport: str) -> str:
    """A redirect to itself."""
    return read(await called(arena, transport, "circle"))


@attack("upstream_failed", "answered", over=_ONE, tries=3)
async def a_header_inside_a_header(arena: Arena, transport: str) -> str:
    """A session id with a bare line break and a cookie: neither is sent to anybody."""
    answer = read(await called(arena, transport, "injected_header"))
    assert read(await called(arena, transport, "sound")) == "answered"
    assert arena.servers["evil"].cookies == []
    assert not any("x-injected" in head for head in arena.servers["evil"].heads)
    return answer


@attack("upstream_failed", over=_ONE, tries=3)
async def headers_without_end(arena: Arena, transport: str) -> str:
    """An answer whose headers never end."""
    return read(await called(arena, transport, "many_headers"))


@attack(HARMLESS, over=CALLERS, tries=3)
async def two_answers(arena: Arena, transport: str) -> str:
    """Two answers to one call: the first is the answer."""
    async with speaker(arena, transport) as client:
        answer = await client.ask("tools/call", {"name": "evil__answers_twice", "arguments": {}})
        assert answer["result"]["content"][0]["text"] == "first", answer
        assert read(await client.ask("tools/call", {"name": "evil__sound", "arguments": {}})) == "answered"
        assert not any("result" in each for each in client.heard), client.heard
    return HARMLESS


@attack("answered", over=CALLERS, tries=2, long_tries=40)
async def changes_without_end(arena: Arena, transport: str) -> str:
    """A thousand times that the lists have changed, within one call."""
    return read(await called(arena, transport, "changes_without_end"))


@attack("answered", "upstream_failed", over=_ONE, tries=3)
async def fields_of_a_stream_that_are_none(arena: Arena, transport: str) -> str:
    """Ids with NUL, ids of 100 kB, times to come back in the next century."""
    return read(await called(arena, transport, "odd_events"))


@on_both_bases("answered", "upstream_failed", over=CALLERS, tries=2, long_tries=40)
async def a_question_that_nobody_will_answer(arena: Arena, transport: str) -> str:
    """A question for which the client has declared nothing, under the id of the client's own call."""
    return read(await called(arena, transport, "asks_what_it_may_not"))


@on_both_bases("upstream_failed", over=CALLERS, tries=3, long_tries=100)
async def answers_to_what_others_asked(arena: Arena, transport: str) -> str:
    """Answers and progress under ids and tokens of other clients' calls, to other servers as well."""
    async with speaker(arena, transport) as client:
        answer = await client.ask("tools/call", {"name": "evil__answers_others", "arguments": {}})
        assert "forged" not in str(client.heard), client.heard
        return read(answer)


@attack("upstream_timeout", "upstream_failed", over=CALLERS, tries=2, at_once=8, long_tries=40)
async def questions_without_end(arena: Arena, transport: str) -> str:
    """Questions to the client without end, and never an answer."""
    async with speaker(arena, transport, capabilities={"elicitation": {"form": {}}}) as client:
        return read(await client.ask("tools/call", {"name": "evil__asks_without_end", "arguments": {}}))


@on_both_bases("upstream_failed", "no_backend", "circuit_open", over=CALLERS, tries=3)
async def a_secret_in_the_address_of_a_server(arena: Arena, transport: str) -> str:
    """A server that cannot be reached, whose address and headers hold a secret: no client reads it."""
    return read(await called(arena, transport, "echo", "away"))


@on_both_bases("answered", "upstream_failed", over=(SESSION,), tries=1, at_once=1, long_tries=10)
async def calls_that_hang(arena: Arena, transport: str) -> str:
    """Twelve calls of one client that are never answered in time: others still reach that server."""
    async with speaker(arena, transport) as client:
        hang = {"name": "hangs__slow", "arguments": {"seconds": 30}}
        calls = [client.ask("tools/call", hang, request_id=f"hangs {number}") for number in range(12)]
        assert {read(answer) for answer in await asyncio.gather(*calls)} <= {"upstream_timeout", "upstream_failed"}
    async with arena.another() as others, speaker(others, transport) as client:
        return read(await client.ask("tools/call", {"name": "hangs__echo", "arguments": {"message": "hi"}}))


@on_both_bases("upstream_failed", "no_backend", "circuit_open", "upstream_timeout", over=_ONE, tries=2, long_tries=20)
async def a_process_that_ends_at_once(arena: Arena, transport: str) -> str:
    """A stdio server that ends whenever it is started."""
    return read(await called(arena, transport, "echo", "dies"))


@on_both_bases("answered", over=_ONE, tries=3, long_tries=40)
async def a_process_that_prints(arena: Arena, transport: str) -> str:
    """A stdio server whose standard output is full of what is no message."""
    return read(await called(arena, transport, "echo", "noisy"))


@on_both_bases("answered", over=_ONE, tries=3, long_tries=40)
async def a_process_that_complains(arena: Arena, transport: str) -> str:
    """A stdio server that writes to its standard error as fast as it can, its secret included."""
    answer = read(await called(arena, transport, "echo", "chatty"))
    assert SECRET not in arena.gateway.log
    return answer


@attack("answered", over=_ONE, tries=3, long_tries=40)
async def a_list_without_end(arena: Arena, transport: str) -> str:
    """A list of tools with always one more page."""
    async with speaker(arena, transport) as client:
        return read(await client.ask("tools/list"))


@attack("answered", over=CALLERS, tries=2, long_tries=40)
async def names_and_texts_without_end(arena: Arena, transport: str) -> str:
    """A tool with a name of 100 kB, and titles and descriptions as long: the one is not listed, the others are cut."""
    async with speaker(arena, transport, "loud" if transport != WEBSOCKET else "") as client:
        answer = await client.ask("tools/list")
    if transport == WEBSOCKET:
        assert len(str(answer)) < 1_000_000
        return read(answer)
    tools = answer["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["fine", f"odd{TURNED}"]
    assert all(len(tool["title"]) <= 1_000 and len(tool["description"]) <= 16_384 for tool in tools)
    return read(answer)


@on_both_bases(HARMLESS, tries=1, at_once=1, long_tries=10)
async def escapes_in_what_a_server_lists(arena: Arena) -> str:
    """Escape sequences, and characters that turn text around, in what a server lists: on the terminal of who asks for it."""

    def listed(*options: str) -> bytes:
        command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "tools", "--server", "loud", *options]
        command += ["--state-dir", str(arena.gateway.state_dir)]
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
        return done.stdout + done.stderr

    for options in ((), ("--json",)):
        shown = await asyncio.to_thread(listed, *options)
        assert b"fine" in shown
        assert_clean(shown)
    assert not {"\x1b", "\u202e", "\x9b"} & set(arena.gateway.log)
    return HARMLESS
