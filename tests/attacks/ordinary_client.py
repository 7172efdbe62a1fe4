"""A client that others' attacks must not touch: calls over three transports all the time, and notes how each went.

Run as a process, so that its times are its own: `python -m tests.attacks.ordinary_client URL FILE`. Each line of the file is one
round of calls, see `Round`. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs

from tests.end_to_end.raw_http import BOTH_ANSWERS, LEGACY, messages_in, modern, request, tool_call
from tests.end_to_end.running_gateway import wait_until

PAUSE_S = 0.1
_PATIENCE_S = 10.0
_HEADERS = {"Content-Type": "application/json", "Accept": BOTH_ANSWERS}
_INITIALIZE = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "ordinary", "version": "1"}}
_INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


@attrs.frozen
class Round:
    """One line of the file. took_s: each call that was answered; problem: what was wrong, "" for nothing."""

    began_s: float
    ended_s: float
    took_s: tuple[float, ...]
    problem: str


class OrdinaryClient:
    """Calls `demo__echo` statelessly on a new connection each time, and in a session over HTTP and over a WebSocket.

    On the WebSocket a call of `demo__slow`, under an id that is easily guessed, is always running.
    """

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._numbers = itertools.count(1)
        self._session: dict[str, str] = {}
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self._strays: list[Any] = []

    async def round(self) -> Round:
        began_s = time.monotonic()
        calls = (self._stateless(), self._in_session(), self._over_socket())
        ended = await asyncio.gather(*(asyncio.wait_for(_timed(call), _PATIENCE_S) for call in calls), return_exceptions=True)
        problems = [repr(each) for each in ended if isinstance(each, BaseException)]
        problems += [f"nobody asked for {stray}" for stray in self._strays]
        self._strays.clear()
        took_s = tuple(each for each in ended if isinstance(each, float))
        return Round(began_s, time.monotonic(), took_s, "; ".join(problems))

    async def _stateless(self) -> None:
        text = f"stateless {next(self._numbers)}"
        body, headers = modern(tool_call("demo__echo", {"message": text}))
        message, _ = await self._post(body, headers | {"Connection": "close"})
        _check(message, text, body["id"])

    async def _in_session(self) -> None:
        if not self._session:
            _, headers = await self._post(request("initialize", _INITIALIZE), {})
            self._session = {"Mcp-Session-Id": headers["Mcp-Session-Id"], "MCP-Protocol-Version": LEGACY}
            await self._post(_INITIALIZED, self._session)
        text = f"session {next(self._numbers)}"
        call = tool_call("demo__echo", {"message": text})
        message, _ = await self._post(call, self._session)
        _check(message, text, call["id"])

    async def _post(self, message: Any, headers: dict[str, str]) -> tuple[Any, Any]:
        async with self._http.post(self._url, data=json.dumps(message), headers=_HEADERS | headers) as answer:
            content = await answer.read()
        is_stream = answer.headers.get("Content-Type", "").startswith("text/event-stream")
        return (list(messages_in(content))[-1] if is_stream else json.loads(content) if content else None), answer.headers

    async def _over_socket(self) -> None:
        if self._socket is None or self._socket.closed:
            self._socket = await self._http.ws_connect(f"{self._url}/ws")
            self._listening = asyncio.create_task(self._listen(self._socket))
            await self._ask(request("initialize", _INITIALIZE))
            await self._socket.send_str(json.dumps(_INITIALIZED))
            self._slow = self._start_slow()
        text = f"socket {next(self._numbers)}"
        call = tool_call("demo__echo", {"message": text})
        _check(await self._ask(call), text, call["id"])
        if self._slow.done():
            assert "result" in self._slow.result(), self._slow.result()
            self._slow = self._start_slow()

    def close(self) -> None:
        self._slow.cancel()
        self._listening.cancel()

    def _start_slow(self) -> asyncio.Task[Any]:
        return asyncio.create_task(self._ask(tool_call("demo__slow", {"seconds": 0.5, "steps": 2}, request_id=1)))

    async def _ask(self, message: Any) -> Any:
        assert self._socket is not None
        self._waiting[message["id"]] = asyncio.get_running_loop().create_future()
        await self._socket.send_str(json.dumps(message))
        return await self._waiting[message["id"]]

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for received in socket:
            message = json.loads(received.data)
            waiting = self._waiting.pop(message.get("id"), None) if "method" not in message else None
            if waiting is None:
                is_of_slow = message.get("method") == "notifications/message" and message["params"].get("logger") == "slow"
                self._strays += [] if is_of_slow else [message]
            elif not waiting.done():
                waiting.set_result(message)
        for each in self._waiting.values():
            if not each.done():
                each.set_exception(ConnectionError(f"the WebSocket was closed with {socket.close_code}"))
        self._waiting.clear()


async def _timed(call: Any) -> float:
    started_s = time.monotonic()
    await call
    return time.monotonic() - started_s


def _check(message: Any, text: str, request_id: Any) -> None:
    assert message["id"] == request_id, f"somebody else's answer: {message}"
    assert "result" in message, message
    assert message["result"]["content"][0]["text"] == text, f"somebody else's answer: {message}"


class Watched:
    """The rounds of a client that runs beside attacks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: list[Round] = []
        self._read_bytes = 0

    def rounds(self, from_s: float = 0.0, to_s: float = float("inf")) -> list[Round]:
        """Those that have ended after the one time and began before the other."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if line.endswith(b"\n"):
                    self._known.append(Round(**json.loads(line)))
                    self._read_bytes += len(line)
        first = bisect_right(self._known, from_s, key=lambda each: each.ended_s)
        return [each for each in self._known[first:] if each.began_s < to_s]

    def took_s(self, from_s: float, to_s: float) -> list[float]:
        """Every call that was answered, of the same rounds."""
        return [took_s for each in self.rounds(from_s, to_s) for took_s in each.took_s]

    def wait_for_rounds(self, since_s: float, count: int) -> None:
        """Wait until so many have begun after that time and ended."""
        wait_until(
            lambda: sum(each.began_s >= since_s for each in self.rounds(since_s)) >= count, 30, "the ordinary client calls"
        )


@contextmanager
def ordinary_client(url: str, directory: Path) -> Iterator[Watched]:
    """Run one for the length of the `with` block. url: of the MCP endpoint."""
    path = directory / "ordinary_client.jsonl"
    path.touch()
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, url, str(path)], stdin=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    watched = Watched(path)
    try:
        watched.wait_for_rounds(0.0, 3)
        yield watched
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


async def run_until_told(url: str, path: Path) -> None:
    told_to_end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        client = OrdinaryClient(http, url)
        with path.open("a") as lines:
            while not told_to_end.done():
                done = await client.round()
                lines.write(json.dumps(attrs.asdict(done)) + "\n")
                lines.flush()
                await asyncio.sleep(PAUSE_S)
        client.close()


if __name__ == "__main__":
    asyncio.run(run_until_told(sys.argv[1], Path(sys.argv[2])))
