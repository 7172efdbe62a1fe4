"""A client of any kind: it opens, calls, says how each call ended, and comes back when it was cut off."""

from __future__ import annotations

import abc
import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import websockets

from .fault_kinds import ALONE, DEMO, LOCAL, PAIR, REQUEST_TIMEOUT_S
from .history import CUT, LATE, OK, WRONG, SessionLost
from .recorder import Recorder
from .served_tools import LEGACY, READ, WRITE

MODERN: Final = "2026-07-28"
SLACK_S: Final = 5.0
"""Beyond the gateway's own `request_timeout`: it has to say that it has passed, on a machine that may be busy."""
OPEN_TIMEOUT_S: Final = 10.0
RETRY_S: Final = 0.2
CUTS: Final = (OSError, aiohttp.ClientError, websockets.WebSocketException, EOFError)
_META: Final = "io.modelcontextprotocol/"
TASKS: Final = "io.modelcontextprotocol/tasks"
_SESSION_LOST: Final = "session_not_found"

Json = dict[str, Any]


class Refused(Exception):
    """The gateway has answered with an error. reason: as the contract names it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def result_of(message: Any, request_id: object) -> Json:
    """The result in a response to this request.

    Raises: Refused, also where it is no response
    """
    if not isinstance(message, dict) or message.get("id") != request_id or ("result" in message) == ("error" in message):
        raise Refused(f"{WRONG}: {json.dumps(message)[:200]}")
    if "error" in message:
        data = message["error"].get("data")
        reason = data.get("reason") if isinstance(data, dict) else None
        raise Refused(reason or f"{WRONG}: {json.dumps(message['error'])[:200]}")
    result: Json = message["result"]
    return result


def modern_meta(capabilities: Json | None = None) -> Json:
    return {
        f"{_META}protocolVersion": MODERN,
        f"{_META}clientInfo": {"name": "chaos", "version": "1"},
        f"{_META}clientCapabilities": capabilities or {},
    }


def initialize_params() -> Json:
    return {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"}}


class CallingClient(abc.ABC):
    """Calls tools at the merged endpoint of `url`, one after the other, until it is stopped.

    backends: whose tools it calls, in turn; at each one that reads and then one that must not run twice.
    is_bound: whether its session is its connection.
    """

    within_s = REQUEST_TIMEOUT_S + SLACK_S
    backends: tuple[str, ...] = (PAIR, ALONE, DEMO, LOCAL)
    is_bound = False

    def __init__(self, url: str, name: str, recorder: Recorder, pause_s: float) -> None:
        self.url = url
        self.name = name
        self.recorder = recorder
        self._pause_s = pause_s
        self._is_open = False
        self.request_ids = itertools.count(1)

    @abc.abstractmethod
    async def open(self) -> None:
        """Raises: one of CUTS, Refused"""

    @abc.abstractmethod
    async def call(self, tool: str, arguments: Json) -> None:
        """Return when it has a result.

        Raises: one of CUTS, Refused
        """

    @abc.abstractmethod
    async def close(self) -> None: ...

    @property
    def is_connected(self) -> bool:
        """Whether what it holds open still is: the other end may have closed it in order meanwhile."""
        return True

    async def keep_calling(self, stop: asyncio.Event) -> None:
        turns = itertools.cycle((backend, tool) for backend in self.backends for tool in (READ, WRITE))
        while not stop.is_set():
            if await self._opened():
                await self.call_once(*next(turns))
            await asyncio.sleep(self._pause_s)
        await self._closed()

    async def call_once(self, backend: str, tool: str) -> None:
        argument = "" if tool == READ or backend == DEMO else uuid.uuid4().hex
        name = "echo" if backend == DEMO else tool
        arguments = {"message": "hello"} if backend == DEMO else {"argument": argument}
        await self.record(backend, argument, f"{backend}__{name}", arguments)

    async def record(self, backend: str, argument: str, tool: str, arguments: Json) -> None:
        """Make one call and write down how it ended; what breaks the connection has it opened anew."""
        within_s = self.within_s + SLACK_S * (self.recorder.history.patience - 1)
        call_id = self.recorder.asked(self.name, backend, argument, within_s, is_bound=self.is_bound)
        try:
            async with asyncio.timeout(within_s):
                await self.call(tool, arguments)
            outcome = OK
        except TimeoutError:
            outcome = LATE
        except Refused as refused:
            outcome = refused.reason
        except CUTS:
            outcome = CUT
        self.recorder.ended(call_id, outcome)
        if outcome == _SESSION_LOST:
            self.recorder.add(SessionLost(client=self.name, backend=backend, at_s=self.recorder.now_s()))
            self.forget_session()
        if outcome in (CUT, LATE, _SESSION_LOST):
            await self._closed()

    def forget_session(self) -> None:
        """The next `open` gets a new one."""
        return

    async def _opened(self) -> bool:
        if self._is_open and not self.is_connected:
            await self._closed()
        if not self._is_open:
            try:
                async with asyncio.timeout(OPEN_TIMEOUT_S):
                    await self.open()
                self._is_open = True
            except (*CUTS, TimeoutError, Refused):
                await self._closed()
                await asyncio.sleep(RETRY_S)
        return self._is_open

    async def _closed(self) -> None:
        self._is_open = False
        try:
            async with asyncio.timeout(1):
                await self.close()
        except (*CUTS, TimeoutError):
            pass


async def sse_events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    """The fields of each event that has data."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\r\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            if "data" in fields:
                yield fields
            fields = {}
