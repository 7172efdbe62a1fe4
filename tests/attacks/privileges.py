"""What policies do not allow, by another way.

The gateway has two demo servers: everybody may use all of `demo`, and of `vault` its tool `echo` with a message that begins
with "public", its resources below `demo://public/`, and nothing else; of topics those below `client.open`.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, PHOENIX, SESSION, SSE, STATELESS, TALKING, WEBSOCKET, attack, on_both_bases
from tests.attacks.other_peoples import still_serves
from tests.attacks.speakers import Speaker, read, speaker
from tests.end_to_end.raw_http import modern, request, tool_call

POLICIES: Final[list[dict[str, Any]]] = [
    {"effect": "allow", "backends": ["demo"]},
    {"effect": "allow", "tools": ["vault__echo"], "when": "arguments.message.startsWith('public')"},
    {"effect": "allow", "resources": ["vault+demo://public/*"]},
    {"effect": "allow", "topics": ["client.open.*"]},
    {"effect": "deny", "tools": ["vault__fail", "fail"], "backends": ["vault"]},
]
_PADDING: Final = "x" * 70_000


async def _asked(client: Speaker, arena: Arena, messages: list[tuple[str, dict[str, Any]]]) -> str:
    """What is read of the next of these."""
    method, params = messages[next(arena.numbers) % len(messages)]
    return read(await client.ask(method, params))


@on_both_bases("forbidden", over=TALKING, tries=6)
async def a_tool_by_every_name_that_it_may_have(arena: Arena, transport: str) -> str:
    """A denied tool by its own name, with prefixes once, twice and in other cases, and with what strippers strip."""
    names = ("vault__slow", "vault__vault__slow", "VAULT__slow", "vault__SLOW", "vault__slow/", "vault__./slow")
    async with speaker(arena, transport) as client:
        return await _asked(client, arena, [("tools/call", {"name": name, "arguments": {}}) for name in names])


@on_both_bases("forbidden", over=(SESSION, STATELESS, SSE, WEBSOCKET), tries=4)
async def a_tool_at_the_endpoint_of_its_server(arena: Arena, transport: str) -> str:
    """A denied tool where names have no prefix, by its own name and by one that another server's tool has at `/mcp`."""
    names = ("slow", "fail", "demo__echo", "demo__slow")
    async with speaker(arena, transport, backend="vault") as client:
        return await _asked(client, arena, [("tools/call", {"name": name, "arguments": {}}) for name in names])


@attack("header_mismatch", "forbidden", tries=2)
async def a_header_that_names_another_tool(arena: Arena) -> str:
    """An allowed tool in `Mcp-Name`, a denied one in the body, and the other way round."""
    names = ("demo__echo", "vault__slow")
    in_body, in_header = names if next(arena.numbers) % 2 else names[::-1]
    body, headers = modern(tool_call(in_body))
    lines = (f"{name}: {in_header if name == 'Mcp-Name' else value}" for name, value in headers.items())
    return (await arena.post(json.dumps(body).encode(), *lines)).reads


@on_both_bases("forbidden", HARMLESS, over=(SESSION, SSE, WEBSOCKET))
async def a_tool_without_an_id(arena: Arena, transport: str) -> str:
    """A denied tool called by a notification, which goes to every server of the session."""
    async with speaker(arena, transport) as client:
        client.heard.clear()
        await client.tell({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "vault__slow", "arguments": {}}})
        refusals = [read(each) for each in client.heard if each and "error" in each]
        client.heard.clear()
        return refusals[0] if refusals else await still_serves(client)


@attack("invalid_request", over=TALKING, tries=4)
async def two_arguments_of_one_name(arena: Arena, transport: str) -> str:
    """What a condition allows and what it does not, under one name, at any depth, escaped, and in a message of 70 kB."""
    number = next(arena.numbers)
    other = '"message":"secret"' if number % 2 else '"m\\u0065ssage":"secret"'
    padding = _PADDING if number % 4 > 1 else ""
    meta = json.dumps(modern(request("x"))[0]["params"]["_meta"] | {"io.example/padding": padding})
    params = f'{{"name":"vault__echo","arguments":{{"message":"public",{other}}},"_meta":{meta}}}'
    message = f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{params}}}'.encode()
    if transport == STATELESS:
        lines = (f"{name}: {value}" for name, value in modern(tool_call("vault__echo"))[1].items())
        return (await arena.post(message, *lines)).reads
    async with speaker(arena, transport) as client:
        return read(await client.ask_raw(message))


@attack("forbidden", over=TALKING, tries=5)
async def arguments_that_a_condition_cannot_judge(arena: Arena, transport: str) -> str:
    """An allowed message beside 70 kB, 1,001 values or 90 levels, no message at all, and one that is a number."""
    deep: Any = 1
    for _ in range(90):
        deep = [deep]
    others: list[dict[str, Any]] = [
        {"message": "public", "more": _PADDING},
        {"message": "public", "more": [0] * 1_001},
        {"message": "public", "more": deep},
        {},
        {"message": 5},
    ]
    async with speaker(arena, transport) as client:
        return await _asked(client, arena, [("tools/call", {"name": "vault__echo", "arguments": each}) for each in others])


@on_both_bases("forbidden", over=TALKING, tries=8)
async def a_resource_outside_of_its_folder(arena: Arena, transport: str) -> str:
    """The way out of an allowed folder by dot segments, escapes, backslashes, case and the other form of the scheme."""
    uris = (
        "vault+demo://public/../readme",
        "vault+demo://public/%2e%2e/readme",
        "vault+demo://public/..%2freadme",
        "vault+demo://public/..\\..\\readme",
        "vault__demo://readme",
        "vault+DEMO://readme",
        "VAULT+demo://public/a",
        "vault+demo://readme",
    )
    async with speaker(arena, transport) as client:
        return await _asked(client, arena, [("resources/read", {"uri": uri}) for uri in uris])


@attack("forbidden", over=TALKING, tries=3)
async def a_completion_for_what_is_denied(arena: Arena, transport: str) -> str:
    """Completions for a denied prompt and resource, alone and beside an allowed one under the other member."""
    argument = {"argument": {"name": "a", "value": ""}}
    references = (
        {"type": "ref/prompt", "name": "vault__summarize"},
        {"type": "ref/resource", "uri": "vault+demo://readme"},
        {"type": "ref/prompt", "name": "vault__x", "uri": "vault+demo://public/a"},
    )
    async with speaker(arena, transport) as client:
        return await _asked(client, arena, [("completion/complete", {"ref": each, **argument}) for each in references])


@on_both_bases("forbidden", over=(SESSION, SSE, WEBSOCKET, STATELESS), tries=2)
async def news_of_a_resource_that_is_denied(arena: Arena, transport: str) -> str:
    """A subscription to a denied resource, alone or among allowed ones."""
    uris = ["vault+demo://public/a", "vault+demo://readme"]
    async with speaker(arena, transport) as client:
        if transport == STATELESS:
            listen = {"notifications": {"resourceSubscriptions": uris[next(arena.numbers) % 2 :]}}
            return read(await client.ask("subscriptions/listen", listen))
        return read(await client.ask("resources/subscribe", {"uri": uris[1]}))


@attack(HARMLESS, over=TALKING)
async def lists_that_are_asked_for_everything(arena: Arena, transport: str) -> str:
    """Lists at both endpoints, page by page: nothing in them that could not be called."""
    async with speaker(arena, transport) as client:
        for method, member, name in (("tools/list", "tools", "name"), ("prompts/list", "prompts", "name")):
            answer = await client.ask(method, {})
            assert read(answer) == "answered", answer
            shown = [item[name] for item in answer["result"][member] if item[name].startswith("vault")]
            assert shown == (["vault__echo"] if method == "tools/list" else []), shown
        listed = (await client.ask("resources/list", {}))["result"]["resources"]
        assert not [item["uri"] for item in listed if item["uri"].startswith("vault")]
    return HARMLESS


@on_both_bases(HARMLESS, over=(PHOENIX,))
async def topics_by_a_wildcard(arena: Arena, transport: str) -> str:
    """Following everything, and every part of it, to hear what somebody else's topics say; publishing under their names."""
    async with speaker(arena, transport) as client:
        for topic in ("mcp:vsm.*", "mcp:mcp.*", "mcp:client.secret", "mcp:client.o"):
            refused = await client.reply(await client.push("phx_join", b"{}", topic))
            assert (refused["status"], refused["response"]["reason"]) == ("error", "forbidden"), topic
        refused = await client.reply(await client.push("event", b'{"event":"secret","data":{}}'))
        assert (refused["status"], refused["response"]["reason"]) == ("error", "forbidden"), refused
        heard: list[str] = []
        published = await client.reply(await client.push("event", b'{"event":"open.a","data":{}}'))
        assert published["status"] == "ok", published
        async with asyncio.timeout(10):
            while "client.open.a" not in heard:  # and before it what a start, a session or a pain has published
                await asyncio.sleep(0.01)
                heard = [each["payload"]["event"] for each in client.heard if each and each.get("event") == "event"]
        assert all(topic.startswith("client.open.") for topic in heard), heard
    return HARMLESS


@attack("forbidden", over=TALKING, tries=4)
async def names_that_have_no_end(arena: Arena, transport: str) -> str:
    """A denied tool and resource with a name of 200 kB: refused in a line, and a line of the audit trail."""
    long = "x" * 200_000
    asked: list[tuple[str, dict[str, Any]]] = [
        ("tools/call", {"name": f"vault__{long}", "arguments": {}}),
        ("resources/read", {"uri": f"vault+demo://{long}"}),
    ]
    if transport == STATELESS:  # a header repeats it, which is bounded itself
        asked = [("completion/complete", {"ref": {"type": "ref/prompt", "name": f"vault__{long}"}, "argument": {}})]
    async with speaker(arena, transport) as client:
        return await _asked(client, arena, asked)


@attack("forbidden", over=TALKING, tries=3)
async def methods_that_nobody_has_allowed(arena: Arena, transport: str) -> str:
    """Methods of no specification, which a server may know all the same."""
    asked: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ("vault/open", "tools/CALL", "resources/list/x")]
    async with speaker(arena, transport) as client:
        return await _asked(client, arena, asked)
