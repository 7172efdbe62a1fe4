"""A small MCP server that costs almost nothing, so that a benchmark measures what stands in front of it.

One tool, `echo`; both eras, decided by the header of each request; plain JSON answers over HTTP/1.1 with keep-alive.
It keeps no sessions: it hands out ids and accepts any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
from collections.abc import Callable
from itertools import count

import msgspec
from msgspec import Raw

_MODERN = b"mcp-protocol-version: 2026-07-28"
_LENGTH = b"content-length:"
_SERVER = {"name": "fast-backend", "version": "1"}
_TOOL = {
    "name": "echo",
    "description": "Returns its message.",
    "inputSchema": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
}


class _Envelope(msgspec.Struct):
    method: str = ""
    id: Raw = Raw()
    params: Raw = Raw(b"{}")


class _Arguments(msgspec.Struct, frozen=True):
    message: str = ""


class _Call(msgspec.Struct, frozen=True):
    arguments: _Arguments = _Arguments()


class _Opening(msgspec.Struct):
    protocolVersion: str = "2025-11-25"


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_call = msgspec.json.Decoder(_Call).decode
_decode_opening = msgspec.json.Decoder(_Opening).decode
_encode = msgspec.json.encode
_session_numbers = count(1)


def answer(body: bytes, *, modern: bool) -> bytes:
    """The whole HTTP response to one POST."""
    try:
        message = _decode(body)
    except msgspec.DecodeError:
        return _http(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}', b"400 Bad Request")
    if not message.id:
        return _http(b"", b"202 Accepted")
    if message.method == "tools/call":
        text = _encode(_decode_call(message.params).arguments.message)
        result = b'{"content":[{"type":"text","text":%b}],"isError":false' % text
        return _http(_response(message.id, result + (b',"resultType":"complete"}' if modern else b"}")))
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


def _in_its_era(result: dict[str, object]) -> Callable[[bool], bytes]:
    """{is modern: bytes} of a constant result, cacheable in the modern era."""
    modern = _encode(result | {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"})
    legacy = _encode(result)
    return lambda is_modern: modern if is_modern else legacy


_OTHERS: dict[str, Callable[[bool], bytes]] = {
    "ping": lambda is_modern: b"{}",
    "tools/list": _in_its_era({"tools": [_TOOL]}),
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


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._pending = b""

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
                answers.append(answer(pending[end + 4 : body_end], modern=_MODERN in head))
            elif head.startswith(b"delete "):
                answers.append(_http(b""))
            else:
                answers.append(_http(b"", b"405 Method Not Allowed", b"Allow: POST, DELETE\r\n"))
            pending = pending[body_end:]
        self._pending = pending
        if answers:
            self._transport.write(b"".join(answers))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
