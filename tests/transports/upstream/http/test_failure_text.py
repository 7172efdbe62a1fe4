"""However a server fails, what a client reads of it names neither its address nor what it was sent.

Each failure is provoked on a real socket, over every transport that has one, and read through a whole cell.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.http.failure_text import _WORDS, failure_text
from tests.doubles.patience import on_loop
from tests.doubles.ports import free_port
from tests.doubles.running_cell import cell_settings, running_cell

_QUERY, _HEADER, _PATH = "s3cretquery", "hushhushvalue", "deep-secret-path"
_Answer = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def writes(*parts: bytes) -> _Answer:
    async def answer(_: str, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()

    return answer


async def resets(_: str, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def repeats_its_request(head: str, writer: asyncio.StreamWriter) -> None:
    """401, with everything in its body that the server was sent."""
    host = next(line for line in head.split("\r\n") if line.lower().startswith("host:")).split(": ")[1]
    path = head.split()[1]
    body = f"denied: http://{host}{path} with {head}".encode()
    writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()


async def breaks_websocket(head: str, writer: asyncio.StreamWriter) -> None:
    keys = [line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key:")]
    if not keys:
        writer.close()
        return
    accept = base64.b64encode(hashlib.sha1(keys[0].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
    writer.write(b"Sec-WebSocket-Protocol: mcp\r\nSec-WebSocket-Accept: %b\r\n\r\n\xff\xff\xff\xff" % accept)
    await writer.drain()


_EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
FAILURES: dict[str, _Answer] = {
    "reset": resets,
    "end": writes(),
    "garbage status line": writes(b"HTTP/9.9 abc nonsense\r\n\r\n"),
    "no HTTP": writes(b"SSH-2.0-OpenSSH_9\r\n\r\n"),
    "bad chunk": writes(_EVENTS, b"zz\r\nboom\r\n"),
    "broken off": writes(_JSON + b"Content-Length: 500\r\n\r\n{"),
    "bad length": writes(_JSON + b"Content-Length: x\r\n\r\n{"),
    "invalid gzip": writes(_JSON + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"),
    "long header": writes(_JSON + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n"),
    "bad header": writes(_JSON + b"X y z\x00: 1\r\n\r\n"),
    "elsewhere": writes(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:9/away\r\nContent-Length: 0\r\n\r\n"),
    "nowhere": writes(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://[/\r\nContent-Length: 0\r\n\r\n"),
    "401": repeats_its_request,
    "broken WebSocket": breaks_websocket,
}
_UNREACHED = ("refused", "unknown name", "TLS to plain")


@asynccontextmanager
async def failing(answer: _Answer) -> AsyncIterator[int]:
    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = [line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
                await reader.readexactly(int(length[0]) if length else 0)
                await answer(head, writer)
        writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def backend(scheme: str, failure: str, port: int) -> dict[str, Any]:
    host = "no-such-host.invalid" if failure == "unknown name" else "localhost"
    scheme = {"http": "https", "ws": "wss", "sse+http": "sse+https"}[scheme] if failure == "TLS to plain" else scheme
    name = f"b{port}"
    return {
        "name": name,
        "replicas": [f"{scheme}://{host}:{port}/{_PATH}?key={_QUERY}"],
        "headers": {"X-Key": _HEADER},
        "request_timeout": 3.0,
    }


def modern_call() -> tuple[dict[str, Any], dict[str, str]]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {}, "_meta": meta}}
    shown = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "x"}
    return message, {**shown, "Accept": "application/json, text/event-stream"}


def legacy_opening() -> tuple[dict[str, Any], dict[str, str]]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    return message, {"Accept": "application/json, text/event-stream"}


@pytest.mark.parametrize("scheme", ["http", "ws", "sse+http"])
def test_no_client_reads_where_a_failing_server_is_or_what_it_was_sent(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def body() -> None:
        async with contextlib.AsyncExitStack() as stack:
            ports = {name: await stack.enter_async_context(failing(answer)) for name, answer in FAILURES.items()}
            ports |= {"refused": free_port(), "unknown name": free_port()}
            ports["TLS to plain"] = await stack.enter_async_context(failing(writes(b"HTTP/1.1 400 Plain\r\n\r\n")))
            backends = [backend(scheme, failure, port) for failure, port in ports.items()]
            cell = await stack.enter_async_context(running_cell(cell_settings(backends)))
            http = await stack.enter_async_context(aiohttp.ClientSession())
            for failure, port in ports.items():
                secrets = [_QUERY, _HEADER, _PATH, "localhost", "invalid:", f":{port}", "127.0.0.1"]
                for make in (modern_call, legacy_opening):
                    message, headers = make()
                    url = f"{cell.url}/mcp/servers/b{port}"
                    async with http.post(url, json=message, headers=headers) as answered:
                        text = await answered.text()
                    error = json.loads(text)["error"]
                    assert error["data"]["reason"] in ("upstream_failed", "upstream_timeout", "no_backend"), (failure, error)
                    assert [each for each in secrets if each in text] == [], (failure, text)
            assert [line for line in caplog.messages if _QUERY in line or _HEADER in line] == []

    on_loop(body)


@given(
    st.text(min_size=8), st.sampled_from([aiohttp.ClientError, aiohttp.ServerDisconnectedError, ValueError, OSError, Exception])
)
def test_no_text_of_a_library_is_told(said: str, kind: type[Exception]) -> None:
    assert said not in failure_text(kind(said))


def test_the_systems_own_words_are_told() -> None:
    assert failure_text(ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")) == "Connection refused"
    assert failure_text(TimeoutError()) == "no answer in time"


@pytest.mark.parametrize("name", _WORDS)
def test_each_class_that_has_words_is_there_under_that_name(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), Exception)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (aiohttp.ConnectionTimeoutError(), "no answer in time"),
        (aiohttp.ContentTypeError(None, ()), "what the server sent is not HTTP"),  # type: ignore[arg-type]
        (aiohttp.InvalidUrlClientError("x"), "an address is not valid"),
        (aiohttp.ServerDisconnectedError(), "the server closed the connection"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), "what the server sent cannot be read"),
        (KeyError("secret"), "KeyError"),
    ],
)
def test_the_nearest_of_its_bases_says_why(error: Exception, text: str) -> None:
    assert failure_text(error) == text
