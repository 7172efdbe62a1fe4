"""Upstreams that misbehave on purpose: faults that no real server produces on demand, each on its own loopback port.

Each runs on a thread with a loop of its own, so that it can serve an asyncio test, a Tornado one and a plain one alike:

    with SilentUpstream() as upstream:
        ...  # upstream.url
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Self

_START_TIMEOUT_S = 5.0


class ScriptedUpstream:
    """A bare HTTP/1.1 server on asyncio streams; a subclass says how each POST is answered.

    requests: the decoded JSON bodies that arrived, in order; heads: the headers of each, names in lower case.
    connections: how many connections were ever accepted.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(_START_TIMEOUT_S), "the scripted upstream did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_TIMEOUT_S)
        assert not self._thread.is_alive(), "the scripted upstream did not stop"

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Wait until the condition on this double holds.

        Raises: AssertionError after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {self.connections=} {len(self.requests)=}"
            time.sleep(0.005)

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Write the answer to one POST, or do something worse."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as failure:
            self._failure = failure
        finally:
            self._listening.set()
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._converse, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request: dict[str, Any] = json.loads(body) if body else {}
                self.requests.append(request)
                self.heads.append(headers)
                await self.answer(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class SilentUpstream(ScriptedUpstream):
    """Accepts connections and requests, and never answers any."""

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()


class EchoUpstream(ScriptedUpstream):
    """Answers as a small, correct legacy server does: the sound half of the faults below, and a base for more."""

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        await self.answer_correctly(request, writer)

    async def answer_correctly(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "id" not in request:
            await send(writer, b"", status="202 Accepted")
            return
        await send(writer, json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result_of(request)}).encode())


class FlappingUpstream(EchoUpstream):
    """Down and up again: while `is_down`, every connection is reset as soon as a request arrives on it.

    flaps: how many requests it answers, then how many it resets, in turn; None leaves the switch to the test.
    """

    def __init__(self, port: int = 0, *, flaps: tuple[int, int] | None = None) -> None:
        super().__init__(port)
        self.is_down = False
        self._flaps = flaps

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if self._flaps is not None:
            up, down = self._flaps
            self.is_down = (len(self.requests) - 1) % (up + down) >= up
        if self.is_down:
            # A linger time of zero turns the close into a reset, as a dying host's would be.
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            raise ConnectionResetError
        await self.answer_correctly(request, writer)


class Garbage(Enum):
    """What is wrong with the answer to a request."""

    INVALID_JSON = "text that is no JSON, declared as JSON"
    WRONG_ID = "a correct result under another id"
    NO_RESPONSE = "a JSON object that is no JSON-RPC response"
    TRUNCATED_JSON = "a body shorter than its Content-Length, then the end"
    TRUNCATED_SSE = "an event stream that ends within an event"
    SSE_WITHOUT_ANSWER = "an event stream with a notification and no answer"
    WRONG_CONTENT_TYPE = "a result as text/plain that is no JSON"
    HTML_500 = "status 500 with an HTML page"
    EMPTY_200 = "status 200 without a body"
    HUGE_BODY = "a correct result of `huge_bytes`"
    NOT_HTTP = "bytes that are no HTTP"
    ENDLESS_HEADERS = "header lines without an end"


class GarbageUpstream(EchoUpstream):
    """Answers what is `sound` correctly, and everything else with the chosen garbage.

    sound: methods that work nevertheless, so that a session can be opened first.
    """

    def __init__(
        self, garbage: Garbage, port: int = 0, *, sound: tuple[str, ...] = ("initialize",), huge_bytes: int = 16 << 20
    ) -> None:
        super().__init__(port)
        self._garbage = garbage
        self._sound = sound
        self._huge_bytes = huge_bytes

    async def answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "id" not in request or request["method"] in self._sound:
            await self.answer_correctly(request, writer)
            return
        right = {"jsonrpc": "2.0", "id": request["id"], "result": result_of(request)}
        match self._garbage:
            case Garbage.INVALID_JSON:
                await send(writer, b'{"jsonrpc": "2.0", oops')
            case Garbage.WRONG_ID:
                await send(writer, json.dumps(right | {"id": "not-yours"}).encode())
            case Garbage.NO_RESPONSE:
                await send(writer, b'{"hello": "world"}')
            case Garbage.TRUNCATED_JSON:
                await send(writer, json.dumps(right).encode()[:20], length=1000)
                raise ConnectionAbortedError
            case Garbage.TRUNCATED_SSE:
                await send(writer, b"event: message\ndata: " + json.dumps(right).encode()[:20], "text/event-stream", length=None)
                raise ConnectionAbortedError
            case Garbage.SSE_WITHOUT_ANSWER:
                notice = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "bye"}}
                await send(writer, f"data: {json.dumps(notice)}\n\n".encode(), "text/event-stream", length=None)
                raise ConnectionAbortedError
            case Garbage.WRONG_CONTENT_TYPE:
                await send(writer, b"result: ok", "text/plain")
            case Garbage.HTML_500:
                await send(writer, b"<html><h1>Oops</h1></html>", "text/html", status="500 Internal Server Error")
            case Garbage.EMPTY_200:
                await send(writer, b"")
            case Garbage.HUGE_BODY:
                right["result"]["content"] = [{"type": "text", "text": "x" * self._huge_bytes}]
                await send(writer, json.dumps(right).encode())
            case Garbage.NOT_HTTP:
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
                await writer.drain()
                raise ConnectionAbortedError
            case Garbage.ENDLESS_HEADERS:
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"X-More: " + b"x" * 4096 + b"\r\n")
                    await writer.drain()


async def send(
    writer: asyncio.StreamWriter,
    body: bytes,
    content_type: str = "application/json",
    *,
    status: str = "200 OK",
    length: int | None = -1,
) -> None:
    """Write one HTTP response. length: -1 is the true one; None leaves it out, so that the connection's end is the body's."""
    head = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}"]
    if length is not None:
        head.append(f"Content-Length: {len(body) if length == -1 else length}")
    else:
        head.append("Connection: close")
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    await writer.drain()


def result_of(request: dict[str, Any]) -> dict[str, Any]:
    """The result of a correct small server with one tool, `echo`."""
    params = request.get("params", {})
    match request.get("method"):
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            }
        case "tools/list":
            return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            return {"content": [{"type": "text", "text": json.dumps(params.get("arguments", {}))}], "isError": False}
        case _:
            return {}
