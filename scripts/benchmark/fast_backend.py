"""A small MCP server that costs almost nothing, so that a benchmark measures what stands in front of it.

Three tools: `echo`; `progress`, which tells of its progress `count` times, `interval_ms` apart, in a stream of events; and
`large`, with a result of `bytes` characters. Both eras, decided by the header of each request; over HTTP/1.1 with keep-alive, or
over stdio. It keeps no sessions: it hands out ids and accepts any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from itertools import count

import msgspec
from msgspec import Raw

_MODERN = b"mcp-protocol-version: 2026-07-28"
_MODERN_META = b'protocolVersion":"2026-07-28"'
_LENGTH = b"content-length:"
_SERVER = {"name": "fast-backend", "version": "1"}


def _tool(name: str, description: str, **arguments: str) -> dict[str, object]:
    properties = {argument: {"type": kind} for argument, kind in arguments.items()}
    return {"name": name, "description": description, "inputSchema": {"type": "object", "properties": properties}}


_TOOLS = [
    _tool("echo", "Returns its message.", message="string"),
    _tool("progress", "Tells of its progress.", count="integer", interval_ms="number"),
    _tool("large", "Returns much.", bytes="integer"),
]


class _Envelope(msgspec.Struct):
    method: str = ""
    id: Raw = Raw()
    params: Raw = Raw(b"{}")


class _Arguments(msgspec.Struct, frozen=True):
    message: str = ""
    count: int = 0
    interval_ms: float = 0.0
    bytes: int = 0


class _Meta(msgspec.Struct, frozen=True):
    progressToken: Raw = Raw(b"0")


class _Call(msgspec.Struct, frozen=True):
    name: str = "echo"
    arguments: _Arguments = _Arguments()
    meta: _Meta = msgspec.field(name="_meta", default=_Meta())


class Telling(msgspec.Struct, frozen=True):
    """A call that is answered by a stream. messages: before its answer, in order; interval_s: from one of them to the next."""

    messages: tuple[bytes, ...]
    interval_s: float
    answer: bytes


class _Opening(msgspec.Struct):
    protocolVersion: str = "2025-11-25"


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_decode_opening = msgspec.json.Decoder(_Opening).decode
_encode = msgspec.json.encode
_session_numbers = count(1)


def answer(body: bytes, *, modern: bool) -> bytes | Telling:
    """The whole HTTP response to one POST, or what to stream."""
    try:
        message = _decode(body)
    except msgspec.DecodeError:
        return _http(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}', b"400 Bad Request")
    if not message.id:
        return _http(b"", b"202 Accepted")
    if message.method == "tools/call":
        call = _decode_call(message.params)
        text = b'"%b"' % (b"x" * call.arguments.bytes) if call.name == "large" else _encode(call.arguments.message)
        result = b'{"content":[{"type":"text","text":%b}],"isError":false' % text
        answered = _response(message.id, result + (b',"resultType":"complete"}' if modern else b"}"))
        return _telling(call, answered) if call.name == "progress" else _http(answered)
    session = b""
    if message.method == "initialize":
        version = _decode_opening(message.params).protocolVersion
        result = _encode({"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": _SERVER})
        session = b"Mcp-Session-Id: fast-%d\r\n" % next(_session_numbers)
    elif message.method in _OTHERS:
        result = _OTHERS[message.method](modern)
    else:
        error = b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32601,"message":"Method not found"}}' % bytes(message.id)
        return _http(error, b"404 Not Found" if modern else b"200 OK")
    return _http(_response(message.id, result), headers=session)


def _telling(call: _Call, answered: bytes) -> Telling:
    count = call.arguments.count
    head = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b,"total":%d,"progress":' % (
        bytes(call.meta.progressToken),
        count,
    )
    messages = tuple(b'%b%d,"message":"step %d of %d"}}' % (head, number, number, count) for number in range(1, count + 1))
    return Telling(messages, call.arguments.interval_ms / 1000, answered)


def _in_its_era(result: dict[str, object]) -> Callable[[bool], bytes]:
    """{is modern: bytes} of a constant result, cacheable in the modern era."""
    modern = _encode(result | {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"})
    legacy = _encode(result)
    return lambda is_modern: modern if is_modern else legacy


_OTHERS: dict[str, Callable[[bool], bytes]] = {
    "ping": lambda is_modern: b"{}",
    "tools/list": _in_its_era({"tools": _TOOLS}),
    "resources/list": _in_its_era({"resources": []}),
    "resources/templates/list": _in_its_era({"resourceTemplates": []}),
    "prompts/list": _in_its_era({"prompts": []}),
    "server/discover": _in_its_era(
        {
            "supportedVersions": ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": _SERVER},
        }
    ),
}


def _response(request_id: Raw, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (bytes(request_id), result)


def _http(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body), body)


def _chunk(message: bytes) -> bytes:
    event = b"event: message\ndata: %b\n\n" % message
    return b"%x\r\n%b\r\n" % (len(event), event)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pending = b""
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        pending = self._pending + data if self._pending else data
        answers = []
        while (end := pending.find(b"\r\n\r\n")) >= 0:
            head = pending[:end].lower()
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            body_end = end + 4 + length
            if len(pending) < body_end:
                break
            if head.startswith(b"post "):
                answered = answer(pending[end + 4 : body_end], modern=_MODERN in head)
                if isinstance(answered, Telling):
                    self._streaming = asyncio.get_running_loop().create_task(self._stream(answered))
                else:
                    answers.append(answered)
            elif head.startswith(b"delete "):
                answers.append(_http(b""))
            else:
                answers.append(_http(b"", b"405 Method Not Allowed", b"Allow: POST, DELETE\r\n"))
            pending = pending[body_end:]
        self._pending = pending
        if answers:
            self._transport.write(b"".join(answers))

    async def _stream(self, telling: Telling) -> None:
        """Each message in a write of its own, as servers send them."""
        assert self._transport is not None
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for message in telling.messages:
            await asyncio.sleep(telling.interval_s)
            if self._transport.is_closing():
                return
            self._transport.write(_chunk(message))
        self._transport.write(_chunk(telling.answer) + b"0\r\n\r\n")


async def serve(port: int) -> None:
    """Listen on loopback until SIGTERM or Ctrl-C; prints one JSON line `{"port": N}`."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    server = await loop.create_server(_Connection, sock=listener)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    await stopped.wait()
    server.close()


def serve_lines(requests: Iterable[bytes], write: Callable[[bytes], object]) -> None:
    """The same over stdio, a message a line, until the last one; the era is that of each request's `_meta`."""
    for line in requests:
        answered = answer(line, modern=_MODERN_META in line)
        if isinstance(answered, Telling):
            for message in answered.messages:
                time.sleep(answered.interval_s)
                write(message + b"\n")
            write(answered.answer + b"\n")
        elif body := answered.partition(b"\r\n\r\n")[2]:
            write(body + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--more-tools", type=int, default=0, help="tools beside these three, which do as echo does")
    parser.add_argument("--stdio", action="store_true", help="speak over standard input and output instead")
    options = parser.parse_args()
    more = [_tool(f"tool_{number}", "Returns its message.", message="string") for number in range(options.more_tools)]
    _OTHERS["tools/list"] = _in_its_era({"tools": _TOOLS + more})
    if options.stdio:
        with open(1, "wb", buffering=0, closefd=False) as output:
            serve_lines(sys.stdin.buffer, output.write)
        return
    asyncio.run(serve(options.port))


if __name__ == "__main__":
    main()
