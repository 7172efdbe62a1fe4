"""More of something than anybody needs.

Each try opens some, and what it opens stays open until the last try has ended.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from contextlib import AsyncExitStack

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, HTTP, PHOENIX, SESSION, SSE, STATELESS, TALKING, WEBSOCKET, attack, on_both_bases
from tests.attacks.speakers import ECHO, ChannelSpeaker, HttpSpeaker, initialize, read, speaker

_KEPT_EVENTS = 500
"""See `surroundings`."""
_REFUSED = ("too_many_connections", "rate_limited")
_CAN_BE_ASKED = {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}


@on_both_bases(HARMLESS, *_REFUSED, tries=10, at_once=2)
async def sessions_that_are_never_closed(arena: Arena) -> str:
    """Ten sessions that nobody closes, again and again."""
    for _ in range(10):
        client = HttpSpeaker(arena, {})
        answer = read(await client.ask("initialize", initialize()))
        if answer != "answered":
            return answer
    return HARMLESS


@on_both_bases(HARMLESS, *_REFUSED, over=(SSE, WEBSOCKET, PHOENIX), tries=20, at_once=5)
async def connections_that_stay(arena: Arena, transport: str) -> str:
    """Connections that stay open and do nothing."""
    try:
        await arena.held.enter_async_context(speaker(arena, transport))
    except Exception as refused:
        if getattr(refused, "status", 0) == 503:
            return "too_many_connections"
        raise
    return HARMLESS


@attack(HARMLESS, tries=20, at_once=10)
async def connections_without_a_request(arena: Arena) -> str:
    """Ten connections that are opened and closed without a word, again and again."""
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", arena.gateway.port, local_addr=(arena.address, 0))
        writer.transport.abort()
    return HARMLESS


@on_both_bases(HARMLESS, over=(SESSION, WEBSOCKET), tries=10, at_once=5)
async def calls_whose_clients_leave(arena: Arena, transport: str) -> str:
    """Calls that take minutes, of clients that leave at once."""
    async with speaker(arena, transport) as client:
        slow = client.ask("tools/call", {"name": "demo__slow", "arguments": {"seconds": 300}})
        try:
            await asyncio.wait_for(slow, 0.05)
        except TimeoutError:
            return HARMLESS
    raise AssertionError("it was answered")


@on_both_bases(HARMLESS, "pool_exhausted", tries=5, long_tries=10, at_once=5)
async def parked_calls(arena: Arena) -> str:
    """Calls that ask, and wait for an answer that never comes."""
    client = HttpSpeaker(arena, {})
    asked = await client.ask("tools/call", {"name": "asks__elicit", "arguments": {}, "_meta": _CAN_BE_ASKED})
    if "error" in asked:
        return read(asked)
    assert asked["result"]["resultType"] == "input_required"
    return HARMLESS


@attack(HARMLESS, over=(WEBSOCKET,), tries=2, at_once=1)
async def more_calls_than_a_connection_may_have(arena: Arena, transport: str) -> str:
    """Three hundred calls at once on one connection."""
    async with speaker(arena, transport) as client:
        slow = {"name": "demo__slow", "arguments": {"seconds": 0.2, "steps": 1}}
        calls = [client.ask("tools/call", slow, request_id=f"call {number}") for number in range(300)]
        reads = {read(answer) for answer in await asyncio.gather(*calls)}
    assert reads <= {"answered", "rate_limited", "too_many_connections", "pool_exhausted", "circuit_open"}, reads
    return HARMLESS


@attack(HARMLESS, over=(PHOENIX,), tries=2, at_once=1)
async def more_channels_than_a_socket_may_have(arena: Arena, transport: str) -> str:
    """Five hundred joins of one socket."""
    async with speaker(arena, transport) as client:
        assert isinstance(client, ChannelSpeaker)
        refs = [await client.push("phx_join", b"{}", f"mcp:flood.{number}") for number in range(500)]
        statuses = [(await client.reply(ref))["status"] for ref in refs]
    assert "error" in statuses, "there is no bound"
    return HARMLESS


@on_both_bases(HARMLESS, "rate_limited", over=(PHOENIX,), tries=3, at_once=1)
async def events_of_clients(arena: Arena, transport: str) -> str:
    """Two hundred events of a client, of a kB each."""
    async with speaker(arena, transport) as client:
        assert isinstance(client, ChannelSpeaker)
        payload = json.dumps({"event": "flood", "data": {"x": "x" * 1_000}}).encode()
        refs = [await client.push("event", payload) for _ in range(200)]
        replies = [await client.reply(ref) for ref in refs]
    refused = [each for each in replies if each["status"] != "ok"]
    return "rate_limited" if refused else HARMLESS


@on_both_bases(HARMLESS, "rate_limited", over=(PHOENIX,), tries=1, at_once=1, long_tries=10)
async def events_over_the_history(arena: Arena, transport: str) -> str:
    """More events of a client than are kept: who follows the gateway's own still reads what came before them."""
    before = await _own_history(arena)
    async with speaker(arena, transport) as client:
        assert isinstance(client, ChannelSpeaker)
        for _ in range(6):
            refs = [await client.push("event", b'{"event":"flood","data":{}}') for _ in range(_KEPT_EVENTS // 5)]
            if any([(await client.reply(ref))["status"] != "ok" for ref in refs]):
                return "rate_limited"
    assert min(await _own_history(arena)) <= max(before), "it was pushed out"
    return HARMLESS


async def _own_history(arena: Arena) -> list[int]:
    """The ids of the gateway's own events that are kept, of what nothing but itself tells."""
    answer = await arena.post(b"", "Last-Event-ID: 0", verb="GET", path="/mcp/sse/events/mcp.*", then_s=1.0)
    found = [int(line[4:]) for line in answer.body.splitlines() if line.startswith(b"id: ")]
    assert found, answer
    return found


@on_both_bases("too_many_connections", tries=1, at_once=1, long_tries=5)
async def streams_under_many_names(arena: Arena) -> str:
    """Three hundred streams, each under another name of a user: they are those of one address, and have its share."""
    async with AsyncExitStack() as streams:
        statuses: Counter[int] = Counter()
        for number in range(300):
            url = f"{arena.gateway.url}/mcp/sse/events/all?user_id=user{number}"
            statuses[(await streams.enter_async_context(arena.http.get(url))).status] += 1
        assert statuses[200] <= 250, statuses
        assert statuses[200] + statuses[503] == 300, statuses
    return "too_many_connections"


@attack(HARMLESS, over=TALKING, tries=3, at_once=1)
async def methods_that_were_made_up(arena: Arena, transport: str) -> str:
    """Thirty methods that nobody has, of names that nobody had before: they do not become series of metrics."""
    async with speaker(arena, transport) as client:
        for _ in range(30):
            assert read(await client.ask(f"made/{uuid.uuid4().hex}")) in ("unknown_method", "error -32601", "invalid_request")
    return HARMLESS


@attack(HARMLESS, tries=3, at_once=1)
async def paths_that_were_made_up(arena: Arena) -> str:
    """Fifty addresses that do not exist."""
    for _ in range(50):
        async with arena.http.get(f"{arena.gateway.url}/{uuid.uuid4().hex}") as answer:
            assert answer.status == 404
    return HARMLESS


@attack(HARMLESS, tries=3, at_once=1)
async def arguments_that_were_made_up(arena: Arena) -> str:
    """Fifty calls with names of users, traces and headers that nobody had before."""
    client = HttpSpeaker(arena, {}, "/mcp")
    for _ in range(50):
        unique = uuid.uuid4().hex
        meta = {"traceparent": f"00-{unique}-{unique[:16]}-01", "baggage": f"x={unique}", unique: 1}
        assert read(await client.ask("tools/call", ECHO | {"_meta": meta})) == "answered"
    return HARMLESS


@on_both_bases(HARMLESS, over=HTTP, tries=4, at_once=4)
async def topics_that_were_made_up(arena: Arena) -> str:
    """Twenty streams of topics that nobody publishes."""
    for _ in range(20):
        path = f"/mcp/sse/events/client.{uuid.uuid4().hex}"
        answer = await arena.post(b"", verb="GET", path=path)
        assert answer.status in (200, 503), answer
    return HARMLESS


@attack(HARMLESS, over=(STATELESS,), tries=4, at_once=4)
async def subscriptions_that_stay(arena: Arena, transport: str) -> str:
    """Streams of subscriptions that nobody reads."""
    body = {
        "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": True}, "_meta": _META},
    }  # fmt: skip
    content = json.dumps(body).encode()
    head = ["POST /mcp HTTP/1.1", f"Host: {arena.host}", "Content-Type: application/json", "MCP-Protocol-Version: 2026-07-28"]
    head += ["Accept: application/json, text/event-stream", "Mcp-Method: subscriptions/listen", f"Content-Length: {len(content)}"]
    for _ in range(5):
        reader, writer = await arena.connect()
        writer.write("\r\n".join([*head, "", ""]).encode() + content)
        async with asyncio.timeout(10):
            first = await reader.readline()
        assert b" 200 " in first or b" 503 " in first, first
    return HARMLESS


_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "flood", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@on_both_bases(HARMLESS, over=(SESSION, STATELESS, WEBSOCKET, PHOENIX), tries=2, at_once=1)
async def tools_that_were_made_up(arena: Arena, transport: str) -> str:
    """Fifty tools that nobody has: they do not become series of metrics."""
    async with speaker(arena, transport) as client:
        for _ in range(50):
            answer = await client.ask("tools/call", {"name": f"demo__{uuid.uuid4().hex}", "arguments": {}})
            assert read(answer) in ("invalid_params", "error -32602"), answer
    return HARMLESS


@on_both_bases(HARMLESS, tries=2, at_once=1)
async def backends_that_were_made_up(arena: Arena) -> str:
    """Fifty backends that nobody has: they do not become series of metrics."""
    for _ in range(50):
        client = HttpSpeaker(arena, {}, f"/mcp/servers/{uuid.uuid4().hex}")
        assert read(await client.ask("tools/list")) in ("no_backend", "invalid_request")
    return HARMLESS


@on_both_bases(HARMLESS, "too_large", over=(SESSION, SSE, WEBSOCKET), tries=3, at_once=1)
async def an_introduction_of_four_megabytes(arena: Arena, transport: str) -> str:
    """An `initialize` of almost 4 MB: the session keeps little of it, and its id fits a header."""
    large = {"capabilities": {"experimental": {"x": {"y": "x" * 3_900_000}}}}
    try:
        async with speaker(arena, transport, **large) as client:
            if transport == SESSION:
                assert len(client.headers["Mcp-Session-Id"]) <= 4_096
            assert read(await client.ask("tools/call", ECHO)) == "answered"
    except KeyError:  # no session was opened
        return "too_large"
    return HARMLESS
