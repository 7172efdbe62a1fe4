"""What belongs to somebody else: calls, answers, progress, topics.

The ordinary client beside it always has a call running under the id 1, and notices whatever it did not ask for.
"""

from __future__ import annotations

import asyncio
import json

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, PHOENIX, SESSION, SSE, TALKING, WEBSOCKET, attack, on_both_bases
from tests.attacks.speakers import ECHO, ChannelSpeaker, Speaker, read, speaker

_BOTH_WAYS = (SESSION, SSE, WEBSOCKET)
"""Transports over which a client may send what is no request."""


async def still_serves(client: Speaker) -> str:
    """Harmless, as far as this client can tell; the ordinary client tells the rest."""
    assert read(await client.ask("tools/call", ECHO, request_id="own")) == "answered"
    strays = [each for each in client.heard if isinstance(each, dict) and "method" not in each and "event" not in each]
    assert strays == [], f"somebody else's: {strays}"
    return HARMLESS


@on_both_bases(HARMLESS, over=_BOTH_WAYS)
async def calls_of_others_are_cancelled(arena: Arena, transport: str) -> str:
    """Cancelling requests 1 to 50 of whomever."""
    async with speaker(arena, transport) as client:
        for number in range(50):
            await client.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
        await client.tell({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": {"a": []}}})
        return await still_serves(client)


@on_both_bases(HARMLESS, over=_BOTH_WAYS)
async def answers_to_what_nobody_asked(arena: Arena, transport: str) -> str:
    """Results and errors for questions 1 to 50, which no server has asked this client."""
    async with speaker(arena, transport) as client:
        for number in range(50):
            answer = {"result": {"action": "accept", "content": {"name": "Eve"}}}
            await client.tell({"jsonrpc": "2.0", "id": number, **answer})
            await client.tell({"jsonrpc": "2.0", "id": f"mcp-gateway-{number}", "error": {"code": 1, "message": "no"}})
        client.heard.clear()  # a refusal of each, over HTTP+SSE and WebSocket
        return await still_serves(client)


@on_both_bases(HARMLESS, over=_BOTH_WAYS)
async def somebody_elses_question_is_answered(arena: Arena, transport: str) -> str:
    """Another client is asked something; this one answers under every id that it can think of."""
    async with speaker(arena, WEBSOCKET, capabilities={"elicitation": {"form": {}}}) as victim:
        call = asyncio.create_task(victim.ask("tools/call", {"name": "asks__elicit", "arguments": {}}, request_id="victim"))
        async with asyncio.timeout(10):
            while not (questions := [each for each in victim.heard if each and each.get("method") == "elicitation/create"]):
                if call.done():
                    return read(call.result())
                await asyncio.sleep(0.01)
        async with speaker(arena, transport) as client:
            forged = {"result": {"action": "accept", "content": {"name": "Eve"}}}
            await client.tell({"jsonrpc": "2.0", "id": questions[0]["id"], **forged})
            for number in range(20):
                await client.tell({"jsonrpc": "2.0", "id": number, **forged})
        own = {"action": "accept", "content": {"name": "Ada"}}
        await victim.tell({"jsonrpc": "2.0", "id": questions[0]["id"], "result": own})
        answer = await call
    assert "Ada" in answer["result"]["content"][0]["text"], answer
    return HARMLESS


@on_both_bases(HARMLESS, over=_BOTH_WAYS)
async def progress_of_others_is_told(arena: Arena, transport: str) -> str:
    """Progress, log messages and changes of lists that only servers tell, with tokens of others."""
    async with speaker(arena, transport) as client:
        for number in range(20):
            params = {"progressToken": number, "progress": 1, "message": "forged"}
            await client.tell({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            await client.tell(
                {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "forged"}}
            )
            await client.tell({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
            await client.tell(
                {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "demo+demo://readme"}}
            )
        return await still_serves(client)


@on_both_bases(HARMLESS, over=_BOTH_WAYS)
async def two_clients_with_equal_tokens(arena: Arena, transport: str) -> str:
    """The progress token and the id of another client's call: each reads its own progress only."""
    async with speaker(arena, transport) as victim, speaker(arena, transport) as client:
        slow = {"name": "demo__slow", "arguments": {"seconds": 0.2, "steps": 2}, "_meta": {"progressToken": "shared"}}
        silent = {"name": "demo__slow", "arguments": {"seconds": 0.2, "steps": 2}}
        answers = await asyncio.gather(
            victim.ask("tools/call", slow, request_id="same"), client.ask("tools/call", silent, request_id="same")
        )
        assert [read(each) for each in answers] == ["answered"] * 2
        told = [each for each in client.heard if each and each.get("method") == "notifications/progress"]
        assert told == [], told
    return HARMLESS


@attack(HARMLESS, over=_BOTH_WAYS)
async def a_level_for_everybody(arena: Arena, transport: str) -> str:
    """A log level of one session: others do not hear more for it."""
    async with speaker(arena, transport) as victim, speaker(arena, transport) as client:
        await victim.ask("logging/setLevel", {"level": "emergency"})
        await client.ask("logging/setLevel", {"level": "debug"})
        await victim.ask("tools/call", {"name": "demo__slow", "arguments": {"seconds": 0.05, "steps": 1}})
        told = [each for each in victim.heard if each and each.get("method") == "notifications/message"]
        assert told == [], told
    return HARMLESS


@on_both_bases("invalid_request", over=(WEBSOCKET,))
async def one_id_for_two_calls(arena: Arena, transport: str) -> str:
    """A second request under the id of one that runs."""
    async with speaker(arena, transport) as client:
        slow = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": "tools/call",
            "params": {"name": "demo__slow", "arguments": {"seconds": 0.3}},
        }
        await client.tell(slow)
        return read(await client.ask_raw(json.dumps(slow).encode()))


@on_both_bases(HARMLESS, over=(PHOENIX,))
async def a_topic_of_somebody_else(arena: Arena, transport: str) -> str:
    """Pushes to topics that this socket has not joined, leaving and closing them included."""
    async with speaker(arena, transport) as client:
        assert isinstance(client, ChannelSpeaker)
        for topic in ("mcp:vsm.algedonic", "phoenix", "mcp:", "room:1", "mcp:events:2", ""):
            for event in ("event", "request", "phx_leave", "phx_close", "phx_error", "phx_reply"):
                ref = await client.push(event, b'{"event":"forged","data":{},"method":"tools/list","id":1}', topic)
        await client.reply(ref)  # the last of the refusals: a socket's pushes are served in order
        client.heard.clear()  # refusals
        return await still_serves(client)


@on_both_bases(HARMLESS, over=(PHOENIX,))
async def an_event_of_the_gateway(arena: Arena, transport: str) -> str:
    """Events with names of the gateway's own: each is published as a client's."""
    async with speaker(arena, transport) as client:
        assert isinstance(client, ChannelSpeaker)
        for name in ("vsm.algedonic.emergency", "mcp.backend.removed", "../mcp.health.failed", "all", "*", "client"):
            reply = await client.reply(await client.push("event", json.dumps({"event": name, "data": {"x": 1}}).encode()))
            assert reply["status"] in ("ok", "error")
        await asyncio.sleep(0.1)
        topics = [each["payload"]["event"] for each in client.heard if each and each.get("event") == "event"]
        forged = [topic for topic in topics if "emergency" in topic or "backend.removed" in topic]
        assert all(topic.startswith("client.") for topic in forged), topics
        client.heard.clear()
        return await still_serves(client)


@on_both_bases("answered", "invalid_params", "error -32602", "error -32601", "error 0", "unknown_method", over=TALKING, tries=3)
async def a_subscription_to_what_is_not_there(arena: Arena, transport: str) -> str:
    """Unsubscribing from resources that others watch, under addresses with line breaks and of other backends."""
    uris = ("demo+demo://readme", "asks+file:///etc/passwd", "a\r\nb")
    async with speaker(arena, transport) as client:
        return read(await client.ask("resources/unsubscribe", {"uri": uris[next(arena.numbers) % len(uris)]}))
