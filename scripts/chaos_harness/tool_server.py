"""An MCP server that writes down each run before it answers, and behaves as badly as it is told to.

`tool_server --name N --folder F [--host H --port P]`: Streamable HTTP at /mcp, or stdio where there is no port. `F/runs.jsonl` is
what has run, `F/N.mode` how it answers: one of `Mode`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import enum
import json
import os
import resource
import socket
import struct
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from .served_tools import ASK, QUESTION, READ, answer, called, no_session

SLOW_S = 0.5
_MOST_BYTES = 2**24


class Mode(enum.Enum):
    WELL = "well"
    GARBAGE = "garbage"
    NOTHING = "nothing"
    SLOW = "slow"
    ERROR = "500"
    RESET = "reset"


def mode_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.mode"


def runs_path(folder: Path) -> Path:
    return folder / "runs.jsonl"


class ToolServer:
    """sessions: that it knows. Those of before its death are unknown, as they are to most servers."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._mode_path = mode_path(folder, name)
        self._runs = os.open(runs_path(folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.sessions: set[str] = set()
        self._asked: dict[str, asyncio.Future[dict[str, Any]]] = {}  # {id of a question: its answer}

    @property
    def mode(self) -> Mode:
        try:
            return Mode(self._mode_path.read_text())
        except (OSError, ValueError):
            return Mode.WELL

    async def run(self, message: dict[str, Any]) -> dict[str, Any]:
        """Write down that it runs, and answer. One line is one write: it is whole, whoever is killed."""
        tool, argument, seconds = called(message)
        if tool and tool != READ:
            line = json.dumps({"argument": argument, "server": self.name, "at_s": time.monotonic()})
            os.write(self._runs, line.encode() + b"\n")
        await asyncio.sleep(seconds + (SLOW_S if self.mode is Mode.SLOW else 0.0))
        return answer(message)

    def question(self) -> tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]:
        question_id = uuid.uuid4().hex
        self._asked[question_id] = asyncio.get_running_loop().create_future()
        request = {"jsonrpc": "2.0", "id": question_id, "method": "elicitation/create", "params": QUESTION}
        return request, self._asked[question_id]

    def take_answer(self, message: dict[str, Any]) -> None:
        if (waiting := self._asked.pop(str(message.get("id")), None)) is not None and not waiting.done():
            waiting.set_result(message)


# ---- Streamable HTTP


class HttpConnection:
    """One client's connection, request after request."""

    def __init__(self, server: ToolServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer

    async def serve(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            while await self._exchange():
                pass
        self._writer.close()

    async def _exchange(self) -> bool:
        """One request; whether the connection goes on."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method = head[0].split()[0]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await self._reader.readexactly(min(int(headers.get("content-length", 0)), _MOST_BYTES))
        session_id = headers.get("mcp-session-id", "")
        if method == "DELETE":
            self._server.sessions.discard(session_id)
            return self._say(200)
        if method != "POST":
            return self._say(405)
        message = json.loads(body)
        if "method" not in message:
            self._server.take_answer(message)
            return self._say(202)
        if message["method"] != "initialize" and session_id not in self._server.sessions:
            return self._say(404 if session_id else 400, no_session(message))
        if "id" not in message:
            return self._say(202)
        return await self._call(message)

    async def _call(self, message: dict[str, Any]) -> bool:
        asks = called(message)[0] == ASK
        response = await self._server.run(message)
        match self._server.mode:
            case Mode.NOTHING:
                return False
            case Mode.RESET:
                linger = struct.pack("ii", 1, 0)
                self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                return False
            case Mode.ERROR:
                return self._say(500)
            case Mode.GARBAGE:
                self._send(200, b'}{"jsonrpc": garbage')
                return True
        if asks:
            await self._ask(response)
            return False
        session_id = uuid.uuid4().hex if message["method"] == "initialize" else ""
        if session_id:
            self._server.sessions.add(session_id)
        return self._say(200, response, f"Mcp-Session-Id: {session_id}\r\n" if session_id else "")

    async def _ask(self, response: dict[str, Any]) -> None:
        """Ask the client on the stream of its call, and answer that call when it has answered."""
        self._writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        request, answered = self._server.question()
        self._writer.write(_event(request))
        await self._writer.drain()
        gone = asyncio.ensure_future(self._reader.read(1))  # nothing more comes on this connection but its end
        try:
            await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
        if answered.done():
            self._writer.write(_event(response))
            await self._writer.drain()

    def _say(self, status: int, message: dict[str, Any] | None = None, headers: str = "") -> bool:
        self._send(status, b"" if message is None else json.dumps(message).encode(), headers)
        return True

    def _send(self, status: int, body: bytes, headers: str = "") -> None:
        head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self._writer.write(head.encode() + body)


def _event(message: dict[str, Any]) -> bytes:
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


async def serve_http(server: ToolServer, host: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await HttpConnection(server, reader, writer).serve()

    async with await asyncio.start_server(connected, host, port) as listening:
        await listening.serve_forever()


# ---- stdio


async def serve_stdio(server: ToolServer) -> None:
    loop = asyncio.get_running_loop()
    running: set[asyncio.Task[None]] = set()

    async def serve_one(message: dict[str, Any]) -> None:
        response = await server.run(message)
        text = "}{ garbage" if server.mode is Mode.GARBAGE else json.dumps(response)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    while line := await loop.run_in_executor(None, sys.stdin.readline):
        message = json.loads(line)
        if "method" in message and "id" in message:
            task = loop.create_task(serve_one(message))
            running.add(task)
            task.add_done_callback(running.discard)


def give_back_limits() -> None:
    """The gateway may start this while a fault takes its disk or its descriptors: that is to last no longer than the fault."""
    for which in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        _, hard = resource.getrlimit(which)
        resource.setrlimit(which, (hard, hard))


def main() -> None:
    give_back_limits()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    server = ToolServer(options.name, options.folder)
    serving = serve_stdio(server) if options.port is None else serve_http(server, options.host, options.port)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serving)


if __name__ == "__main__":
    main()
