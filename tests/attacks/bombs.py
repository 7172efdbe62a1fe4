"""A little that becomes much.

What is small on the wire and large in memory, or slow to read.
"""

from __future__ import annotations

import gzip
import json
import zlib

from tests.attacks.arena import Arena
from tests.attacks.attack import HARMLESS, HTTP, PHOENIX, SESSION, SSE, STATELESS, TALKING, WEBSOCKET, attack
from tests.attacks.http_syntax import PING
from tests.attacks.speakers import ECHO, read, speaker
from tests.doubles.raw_websocket import CLOSE, CONTINUATION, TEXT, RawWebSocket
from tests.doubles.raw_websocket import PING as PING_FRAME

SOCKETS = (WEBSOCKET, PHOENIX)
_BODIES = (SESSION, SSE, WEBSOCKET, PHOENIX)
"""Transports that take bytes as they are: a stateless request has headers that must agree."""
_BOMB = gzip.compress(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"' + b"x" * 200_000_000 + b'"}}', 9)
_SOCKET_BOMB = zlib.compressobj(9, zlib.DEFLATED, -15)
_SOCKET_BOMB_BYTES = _SOCKET_BOMB.compress(b"x" * 200_000_000) + _SOCKET_BOMB.flush(zlib.Z_SYNC_FLUSH)


def echo_of(message: bytes) -> bytes:
    """A call of the tool `echo`; message: as JSON."""
    return b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"demo__echo","arguments":{"message":%b}}}' % message


async def said(arena: Arena, transport: str, raw: bytes) -> str:
    """What a client of this transport reads for these bytes."""
    async with speaker(arena, transport) as client:
        answer = await client.ask_raw(raw)
        return answer["end"] if "end" in answer else read(answer)


def socket_path(transport: str) -> str:
    return "/mcp/ws" if transport == WEBSOCKET else "/mcp/websocket?vsn=2.0.0"


@attack("too_large")
async def a_bomb_of_gzip(arena: Arena) -> str:
    """A body of 200 kB that unpacks to 200 MB."""
    return (await arena.post(_BOMB, "Content-Encoding: gzip")).reads


@attack("parse_error", "invalid_request", "too_large", tries=6)
async def a_broken_encoding(arena: Arena) -> str:
    """Compressed bodies that are cut off, twice compressed, followed by others, or not compressed at all."""
    sound = gzip.compress(PING)
    bodies = (sound[:-6], gzip.compress(_BOMB), sound + _BOMB, PING, b"", sound[:10])
    return (await arena.post(bodies[next(arena.numbers) % len(bodies)], "Content-Encoding: gzip")).reads


@attack("status 415", "invalid_request")
async def an_encoding_of_encodings(arena: Arena) -> str:
    """A body that says it was compressed a thousand times."""
    return (await arena.post(PING, f"Content-Encoding: {', '.join(['gzip'] * 1000)}")).reads


@attack("close 1009", over=SOCKETS)
async def a_bomb_of_deflate(arena: Arena, transport: str) -> str:
    """A frame of 200 kB that unpacks to 200 MB."""
    headers = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with RawWebSocket(arena.gateway.port, socket_path(transport), headers) as client:
        assert client.status == 101
        client.send(TEXT, _SOCKET_BOMB_BYTES, reserved=4)
        return f"close {(await client.receive()).code}"


@attack("close 1002", "close 1009", over=SOCKETS, tries=4)
async def a_frame_that_breaks_the_rules(arena: Arena, transport: str) -> str:
    """A frame of 2^62 bytes, one compressed without agreement, one unmasked, a control frame in fragments."""
    async with RawWebSocket(arena.gateway.port, socket_path(transport)) as client:
        wrong = next(arena.numbers) % 4
        if wrong == 0:
            client.send(TEXT, b"x", size=1 << 62)
        elif wrong == 1:
            client.send(TEXT, b"x", reserved=4)
        elif wrong == 2:
            client.send(TEXT, b"x", is_masked=False)
        else:
            client.send(PING_FRAME, b"x", is_final=False)
        return f"close {(await client.receive()).code}"


@attack(HARMLESS, "close 1007", over=SOCKETS)
async def fragments_without_content(arena: Arena, transport: str) -> str:
    """A message in twenty thousand empty fragments."""
    async with RawWebSocket(arena.gateway.port, socket_path(transport)) as client:
        client.send(TEXT, b"{", is_final=False)
        for _ in range(20):
            for _ in range(1_000):
                client.send(CONTINUATION, b"", is_final=False)
            await client.writer.drain()
        client.send(CONTINUATION, b"}")
        answer = await client.receive()
        return f"close {answer.code}" if answer.opcode == CLOSE else HARMLESS


@attack("parse_error", "close 1007", over=_BODIES)
async def nesting_without_end(arena: Arena, transport: str) -> str:
    """JSON nested a hundred thousand deep."""
    return await said(arena, transport, echo_of(b"[" * 100_000 + b"]" * 100_000))


@attack("answered", "invalid_params", "error -32602", over=TALKING)
async def twenty_thousand_keys(arena: Arena, transport: str) -> str:
    """A call with twenty thousand arguments."""
    arguments = {"message": "hi", **{f"key {number}": number for number in range(20_000)}}
    async with speaker(arena, transport) as client:
        return read(await client.ask("tools/call", ECHO | {"arguments": arguments}))


@attack("invalid_request", "parse_error", over=_BODIES)
async def an_id_of_a_million_digits(arena: Arena, transport: str) -> str:
    """A request whose id is a number of a million digits."""
    return await said(arena, transport, b'{"jsonrpc":"2.0","method":"ping","id":' + b"1" * 1_000_000 + b"}")


@attack("unknown_method", "invalid_request", "error -32601", over=TALKING)
async def a_method_of_a_megabyte(arena: Arena, transport: str) -> str:
    """A method whose name has a million characters."""
    if transport == STATELESS:  # its name is repeated in a header, which has a limit of its own
        return (
            await arena.post(b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"m" * 1_000_000), "MCP-Protocol-Version: 2025-11-25")
        ).reads
    return await said(arena, transport, b'{"jsonrpc":"2.0","id":1,"method":"%b"}' % (b"m" * 1_000_000))


@attack("invalid_params", "error -32602", over=_BODIES)
async def a_tool_of_a_megabyte(arena: Arena, transport: str) -> str:
    """A tool whose name has a million characters."""
    name = b"demo__" + b"t" * 1_000_000
    return await said(arena, transport, b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%b"}}' % name)


@attack("too_large", "close 1009", over=_BODIES)
async def a_message_beyond_the_limit(arena: Arena, transport: str) -> str:
    """A message of more bytes than one may have."""
    return await said(arena, transport, echo_of(b'"' + b"x" * 4_300_000 + b'"'))


@attack("answered", "parse_error", "invalid_params", "invalid_request", "error -32602", over=_BODIES, tries=5)
async def half_characters(arena: Arena, transport: str) -> str:
    """Halves of characters, NUL and the largest code points, in what is echoed."""
    texts = (rb'"\ud800"', rb'"\udfff\ud800"', rb'"\u0000"', rb'"\u202e\u2066\ufeff"', rb'"\udbff\udfff\uffff"')
    return await said(arena, transport, echo_of(texts[next(arena.numbers) % len(texts)]))


@attack("parse_error", over=(SESSION, SSE), tries=3)
async def characters_that_are_none(arena: Arena, transport: str) -> str:
    """Bytes that are no UTF-8."""
    return await said(arena, transport, echo_of(b'"\xff\xfe\xc0\xaf\xed\xa0\x80"'))


@attack("invalid_request", over=(SESSION, SSE, WEBSOCKET))
async def a_batch_of_ten_thousand(arena: Arena, transport: str) -> str:
    """A batch of ten thousand requests."""
    batch = b"[" + b",".join(b'{"jsonrpc":"2.0","id":%d,"method":"ping"}' % number for number in range(10_000)) + b"]"
    return await said(arena, transport, batch)


@attack("invalid_request", over=HTTP)
async def a_batch_that_is_too_long(arena: Arena) -> str:
    """A batch of ten thousand requests in the one revision that has them."""
    opened = await arena.post(
        json.dumps(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "initialize",
                "params": {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}},
            }
        ).encode()
    )
    session = next(line for line in opened.head.split("\r\n") if line.lower().startswith("mcp-session-id"))
    batch = b"[" + b",".join(b'{"jsonrpc":"2.0","id":%d,"method":"tools/list"}' % number for number in range(10_000)) + b"]"
    return (await arena.post(batch, session)).reads


@attack("answered", over=HTTP, tries=2)
async def a_body_byte_by_byte(arena: Arena) -> str:
    """A body in fifty thousand chunks of one byte."""
    body = echo_of(b'"' + b"x" * 50_000 + b'"')
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with speaker(arena, SESSION) as client:
        lines = [f"{name}: {value}" for name, value in client.headers.items()]
        answer = await arena.post(chunks, "Transfer-Encoding: chunked", *lines)
    return "answered" if answer.status == 200 else answer.reads


@attack("invalid_request", "parse_error", "invalid_params", over=_BODIES, tries=3)
async def a_member_named_twice(arena: Arena, transport: str) -> str:
    """A tool, a method or an argument named twice, once with an escape: a server could read the other one."""
    calls = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"demo__echo","n\\u0061me":"demo__fail","arguments":{}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{"name":"x"}}',
        echo_of(b'"hi","message":"other"'),
    )
    return await said(arena, transport, calls[next(arena.numbers) % len(calls)])


@attack("answered", "parse_error", "invalid_params", "error -32602", over=_BODIES)
async def a_number_of_a_million_digits(arena: Arena, transport: str) -> str:
    """A number of a million digits."""
    return await said(arena, transport, echo_of(b"1" * 1_000_000))
