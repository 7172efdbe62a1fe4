"""An HTTP server on the test's loop whose answers a script writes, byte by byte, and the gateway's wire to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.upstream.http.streamable_http import StreamableHttpConversation, StreamableHttpUpstream
from tests.doubles.running_cell import cell_settings

LEGACY, MODERN = "2025-11-25", "2026-07-28"
MAX_BYTES = 10_000


@attrs.frozen
class Seen:
    """One request as the server saw it; header names in lower case."""

    verb: str
    headers: dict[str, str]
    body: Any

    @property
    def method(self) -> str:
        return str(self.body.get("method", ""))


class Server:
    """An HTTP/1.1 server on the test's loop; the script writes the answer. closed: connections that the client has closed."""

    def __init__(self, script: Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._script = script
        self.seen: list[Seen] = []
        self.connections = 0
        self.closed = 0
        self.url = ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        answering: asyncio.Future[None] | None = None
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Seen(first.split()[0], headers, json.loads(body) if body else {})
                self.seen.append(request)
                answering = asyncio.ensure_future(self._script(request, writer))
                gone = asyncio.ensure_future(_until_closed(reader))
                await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not answering.done():
                    break
                gone.cancel()
                await answering
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if answering is not None:
                answering.cancel()
            self.closed += 1
            writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    """Wait for the client's end of the connection, without taking a byte of its next request."""
    while not reader.at_eof() and reader.exception() is None:
        await asyncio.sleep(0.002)


@asynccontextmanager
async def serving(
    script: Callable[[Seen, asyncio.StreamWriter], Awaitable[None]], **backend: Any
) -> AsyncIterator[tuple[Server, StreamableHttpConversation]]:
    server = Server(script)
    listening = await asyncio.start_server(server.converse, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
    wire = conversation(server.url, **backend)
    try:
        yield server, wire
    finally:
        await wire.close()
        listening.close()


def conversation(url: str, **backend: Any) -> StreamableHttpConversation:
    (settings,) = cell_settings([{"name": "b", "replicas": [url], **backend}]).backends
    wire = StreamableHttpUpstream().connect(ReplicaTarget(settings, 0, MAX_BYTES))
    assert isinstance(wire, StreamableHttpConversation)
    return wire


def call(request_id: bytes = b"7", revision: str = LEGACY, timeout_s: float = 5.0, **fields: Any) -> UpstreamRequest:
    message = fields.pop("message", Request(request_id, "tools/call", b'{"name":"x"}'))
    return UpstreamRequest(
        **{"kind": RequestKind.REQUEST, "message": message, "revision": revision, "timeout_s": timeout_s, **fields}
    )


async def ask(
    wire: StreamableHttpConversation, request: UpstreamRequest | None = None
) -> tuple[UpstreamAnswer | UpstreamError, list[tuple[Message | None, str | None]]]:
    """(how it ended, what came before)"""
    events: list[tuple[Message | None, str | None]] = []

    async def take(message: Message | None, event_id: str | None) -> None:
        events.append((message, event_id))

    try:
        return await wire.exchange(request or call(), take), events
    except UpstreamError as error:
        return error, events


async def refused(wire: StreamableHttpConversation, request: UpstreamRequest | None = None) -> UpstreamError:
    ended, _ = await ask(wire, request)
    assert isinstance(ended, UpstreamError), ended
    return ended


def reply(
    body: bytes | dict[str, Any] = b"", status: str = "200 OK", content_type: str = "application/json", **headers: str
) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    """A script that gives this answer to everything; a dict gets the request's id."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        content = body
        if isinstance(content, dict):
            content = json.dumps({"jsonrpc": "2.0", "id": seen.body.get("id"), **content}).encode()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}"]
        lines += [f"Content-Type: {content_type}"] if content_type else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await writer.drain()

    return script


def raw(*parts: bytes, then_close: bool = True) -> Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]:
    async def script(_: Seen, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
        if then_close:
            writer.close()
        else:
            await asyncio.Event().wait()

    return script


SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text: str | bytes) -> bytes:
    content = text.encode() if isinstance(text, str) else text
    return b"%x\r\n%b\r\n" % (len(content), content)


OK = {"result": {"ok": True}}


BROKEN: dict[str, Callable[[Seen, asyncio.StreamWriter], Awaitable[None]]] = {
    "another id": reply(b'{"jsonrpc":"2.0","id":8,"result":{}}'),
    "no JSON": reply(b"oops"),
    "no response": reply(b'{"jsonrpc":"2.0","method":"ping","id":7}'),
    "no message": reply(b'{"hello":1}'),
    "202 to a request": reply(b"", "202 Accepted", ""),
    "204 to a request": reply(b"", "204 No Content", ""),
    "no body": reply(b"", "200 OK", "application/json"),
    "another content type": reply(b"<p>ok</p>", content_type="text/html"),
    "an answer to nobody in a batch": reply(b'[{"jsonrpc":"2.0","id":8,"result":{}},{"jsonrpc":"2.0","id":null,"result":{}}]'),
    "an event for another request": raw(SSE_HEAD, chunk('data: {"jsonrpc":"2.0","id":8,"result":{}}\n\n'), then_close=False),
    "a redirect to another origin": reply(b"", "307 Temporary Redirect", "", Location="http://127.0.0.1:1/"),
    "a redirect that would change the request": reply(b"", "302 Found", "", Location="/other"),
    "a redirect to nowhere": reply(b"", "308 Permanent Redirect", "", Location="http://[/"),
    "500 with a page": reply(b"<h1>", "500 Internal Server Error", "text/html"),
    "503 with an error of another request": reply(
        b'{"jsonrpc":"2.0","id":8,"error":{"code":-32000,"message":"busy"}}', "503 Service Unavailable"
    ),
    "a large body": reply({"result": {"x": "y" * MAX_BYTES}}),
    "a large body in chunks": raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", *[chunk(b"x" * 4000)] * 4
    ),
    "a large event": raw(SSE_HEAD, *[chunk(b"data: " + b"x" * 4000 + b"\n")] * 4),
    "a malformed event": raw(SSE_HEAD, chunk("data: {oops\n\n")),
    "a stream without an answer": raw(SSE_HEAD, chunk(": nothing\n\n"), b"0\r\n\r\n"),
    "a stream that breaks off": raw(SSE_HEAD, chunk(": nothing\n\n")),
    "a body that breaks off": raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"),
    "no HTTP": raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "nothing but the end": raw(),
}
