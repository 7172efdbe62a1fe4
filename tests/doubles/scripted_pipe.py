"""Connections to servers whose every message the test reads and writes itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.upstream.pipes.message_pipe import PipeClosed, TooLarge

INITIALIZE_RESULT = b'{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"scripted","version":"1"}}'


class ScriptedPipe:
    """One connection. sent: what the gateway has sent, in order. answers: given at once, {method: result or error, as JSON}."""

    def __init__(self, answers: dict[str, bytes], open_error: str = "", ends_before: str = "") -> None:
        self._answers = answers
        self._ends_before = ends_before
        self._open_error = open_error
        self._incoming: asyncio.Queue[bytes | TooLarge | None] = asyncio.Queue()
        self._end_text = ""
        self.sent: list[Message] = []
        self.is_open = False
        self.is_closed = False
        self.reads = asyncio.Event()
        self.reads.set()

    async def open(self) -> None:
        await asyncio.sleep(0)
        if self._open_error:
            raise PipeClosed(self._open_error)
        self.is_open = True

    async def send(self, message: bytes, on_begin: Callable[[], None]) -> None:
        await self.reads.wait()
        decoded = jsonrpc.decode(message)
        if not isinstance(decoded, Response) and decoded.method == self._ends_before:
            self.end()
        if self._end_text:
            raise PipeClosed(self._end_text)
        on_begin()
        self.sent.append(decoded)
        if isinstance(decoded, Request) and decoded.method in self._answers:
            answer = self._answers[decoded.method]
            is_error = b'"code"' in answer
            self.say(Response(decoded.id, b"" if is_error else answer, answer if is_error else b""))

    async def receive(self) -> bytes | TooLarge:
        data = await self._incoming.get()
        if data is None:
            raise PipeClosed(self._end_text)
        return data

    async def close(self) -> None:
        self.is_closed = True
        self.is_open = False

    # ---- what the test does

    def say(self, message: Message | bytes | TooLarge) -> None:
        self._incoming.put_nowait(message if isinstance(message, bytes | TooLarge) else jsonrpc.encode(message))

    def end(self, text: str = "the server has left") -> None:
        self._end_text = text
        self._incoming.put_nowait(None)

    def requests(self, method: str) -> list[Request]:
        return [each for each in self.sent if isinstance(each, Request) and each.method == method]

    def notifications(self, method: str) -> list[Any]:
        """Their params."""
        found = [each for each in self.sent if isinstance(each, Notification) and each.method == method]
        return [msgspec.json.decode(each.params) if each.params else None for each in found]

    def responses(self) -> list[Response]:
        return [each for each in self.sent if isinstance(each, Response)]


class ScriptedServer:
    """Makes connections. pipes: every one, in order. answers, open_error and ends_before (a method that it does not read any
    more) are those of the next ones.
    """

    def __init__(self, **answers: bytes) -> None:
        self.answers = {"initialize": INITIALIZE_RESULT, "ping": b"{}", **answers}
        self.open_error = self.ends_before = ""
        self.pipes: list[ScriptedPipe] = []

    def __call__(self) -> ScriptedPipe:
        pipe = ScriptedPipe(self.answers, self.open_error, self.ends_before)
        self.pipes.append(pipe)
        return pipe

    @property
    def open_count(self) -> int:
        return sum(pipe.is_open for pipe in self.pipes)
