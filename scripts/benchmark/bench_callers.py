"""Clients of the benchmark of transports: one connection each, one call at a time, every answer looked at."""

from __future__ import annotations

import http.client
import json
import socket
import struct
from itertools import count
from typing import Any, Final, Protocol
from urllib.parse import urljoin

from .bench_clients import PHOENIX_PATH
from .bench_load import CheckedClient, WrongAnswer, echo_params
from .bench_sockets import NotServed, connect, masked, open_websocket, read_until

_SSE_REVISION: Final = "2024-11-05"
_CHUNK_BYTES: Final = 65_536


class Caller(Protocol):
    """Opened by its constructor, with the port. Raises, here too: NotServed, WrongAnswer, OSError, http.client.HTTPException."""

    def call(self) -> None:
        """One `tools/call` of echo, to its answer."""

    def close(self) -> None: ...


class HttpCaller:
    """Streamable HTTP, of either era."""

    def __init__(self, port: int, *, is_legacy: bool) -> None:
        self._client = CheckedClient(port, legacy=is_legacy)
        self._client.open_session()

    def call(self) -> None:
        self._client.call_echo("hello")

    def close(self) -> None:
        self._client.__exit__(None, None, None)


class SseCaller:
    """HTTP+SSE: requests are posted, answers come with the stream. Source: MCP 2024-11-05, basic/transports."""

    def __init__(self, port: int) -> None:
        self._ids = count(1)
        self._stream = connect(port)
        self._posts = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        head = f"GET /mcp/sse/connect HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
        self._stream.sendall(head.encode())
        opened = read_until(self._stream, b"event: endpoint", b"\n\n")
        endpoint = opened.partition(b"event: endpoint")[2].partition(b"data:")[2].split()[0].decode()
        self._path = urljoin("/mcp/sse/connect", endpoint)
        client = {"protocolVersion": _SSE_REVISION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self._ask("initialize", client)
        self._post({"method": "notifications/initialized"})

    def call(self) -> None:
        _check(self._ask("tools/call", echo_params("hello", legacy=True)))

    def close(self) -> None:
        self._stream.close()
        self._posts.close()

    def _ask(self, method: str, params: dict[str, Any]) -> bytes:
        request_id = next(self._ids)
        self._post({"method": method, "params": params, "id": request_id})
        seen = b""
        while not seen.endswith((b"\n\n", b"\n\n\r\n")) or f'"id":{request_id}'.encode() not in seen:
            chunk = self._stream.recv(_CHUNK_BYTES)
            if not chunk:
                raise NotServed("the stream has ended")
            seen += chunk
        return seen

    def _post(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message})
        self._posts.request("POST", self._path, body, {"Content-Type": "application/json"})
        answer = self._posts.getresponse()
        answer.read()
        if answer.status != 202:
            raise WrongAnswer(f"a POST was answered with {answer.status}")


class WebSocketCaller:
    """Our own WebSocket endpoint, stateless."""

    def __init__(self, port: int) -> None:
        self._ids = count(1)
        self._frames = _Frames(open_websocket(port, "/mcp/ws", "mcp"))

    def call(self) -> None:
        request = {"jsonrpc": "2.0", "method": "tools/call", "params": echo_params("hello", legacy=False), "id": next(self._ids)}
        self._frames.send(request)
        _check(self._frames.next())

    def close(self) -> None:
        self._frames.close()


class PhoenixCaller:
    """A channel of Phoenix, stateless."""

    _TOPIC: Final = "mcp:client.bench"

    def __init__(self, port: int) -> None:
        self._refs = count(1)
        self._frames = _Frames(open_websocket(port, PHOENIX_PATH))
        self._frames.send(["1", "0", self._TOPIC, "phx_join", {}])
        if b'"ok"' not in self._frames.next():
            raise NotServed("the channel was not joined")

    def call(self) -> None:
        ref = str(next(self._refs))
        request = {"method": "tools/call", "params": echo_params("hello", legacy=False), "id": ref}
        self._frames.send(["1", ref, self._TOPIC, "request", request])
        while True:
            frame = self._frames.next()
            event, payload = json.loads(frame)[3:]
            if event == "response" and payload["id"] == ref:
                break
        _check(frame)

    def close(self) -> None:
        self._frames.close()


class _Frames:
    """What goes over a WebSocket that is open: a text frame each way at a time. Source: RFC 6455, section 5.2."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._pending = b""

    def send(self, message: object) -> None:
        self._client.sendall(masked(json.dumps(message).encode()))

    def next(self) -> bytes:
        """The next text. Raises: NotServed."""
        while True:
            head = self._take(2)
            size = head[1]
            if size == 126:
                (size,) = struct.unpack("!H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._take(8))
            content = self._take(size)
            if head[0] & 0x0F == 1:
                return content

    def _take(self, size: int) -> bytes:
        while len(self._pending) < size:
            chunk = self._client.recv(_CHUNK_BYTES)
            if not chunk:
                raise NotServed("the gateway has closed a WebSocket")
            self._pending += chunk
        taken, self._pending = self._pending[:size], self._pending[size:]
        return taken

    def close(self) -> None:
        self._client.close()


def _check(answer: bytes) -> None:
    """Raises: WrongAnswer."""
    if b'"text":"hello"' not in answer:
        raise WrongAnswer(answer[:300].decode(errors="replace"))
