"""Clients over Streamable HTTP of both eras, with parked calls and tasks, and over HTTP+SSE."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any, ClassVar
from urllib.parse import urljoin

import aiohttp

from .clients import MODERN, TASKS, CallingClient, Json, Refused, initialize_params, modern_meta, result_of, sse_events
from .fault_kinds import ALONE, PAIR
from .history import WRONG
from .served_tools import ASK, LEGACY, WORK

_ACCEPT = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
_TERMINAL = ("completed", "failed", "cancelled")
POLL_S = 0.25
WORK_S = 1.3
"""Longer than the second after which a call becomes a task."""


class HttpClient(CallingClient):
    """One kept connection, as a client library has it.

    moves: takes a new one for each request, which may lead to another node.
    """

    moves = False
    _http: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        if self._http is None:
            timeout = aiohttp.ClientTimeout(total=None)
            self._http = aiohttp.ClientSession(connector=self._connector(), timeout=timeout)

    def _connector(self) -> aiohttp.TCPConnector:
        return (
            aiohttp.TCPConnector(limit=1, force_close=True)
            if self.moves
            else aiohttp.TCPConnector(limit=1, keepalive_timeout=300)
        )

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    @property
    def http(self) -> aiohttp.ClientSession:
        assert self._http is not None
        return self._http

    async def post(self, body: Json, headers: dict[str, str]) -> tuple[Any, aiohttp.ClientResponse]:
        """What answers; of a stream the message that answers this request.

        Raises: aiohttp.ClientError, Refused where it is no JSON
        """
        url = f"{self.url}/mcp?user_id={self.name}"
        async with self.http.post(url, json=body, headers={**_ACCEPT, **headers}) as response:
            if response.content_type == "text/event-stream":
                async for fields in sse_events(response):
                    message = json.loads(fields["data"])
                    if "method" not in message:
                        return message, response
                raise aiohttp.ClientPayloadError("the stream ended without an answer")
            text = await response.text()
        try:
            return json.loads(text) if text else None, response
        except ValueError:
            raise Refused(f"{WRONG}: {response.status} {text[:200]}") from None


class SessionClient(HttpClient):
    """2025-11-25: its session outlives its connections."""

    _session_id = ""

    async def open(self) -> None:
        await super().open()
        if not self._session_id:
            message, response = await self.post(self._body("initialize", initialize_params()), {})
            result_of(message, "initialize")
            self._session_id = response.headers["Mcp-Session-Id"]
            await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, self._headers())

    def forget_session(self) -> None:
        self._session_id = ""

    async def call(self, tool: str, arguments: Json) -> None:
        request_id = next(self.request_ids)
        body = self._body("tools/call", {"name": tool, "arguments": arguments}, request_id)
        message, _ = await self.post(body, self._headers())
        result_of(message, request_id)

    def _headers(self) -> dict[str, str]:
        return {"MCP-Protocol-Version": LEGACY, "Mcp-Session-Id": self._session_id}

    @staticmethod
    def _body(method: str, params: Json, request_id: object = None) -> Json:
        return {"jsonrpc": "2.0", "id": request_id or method, "method": method, "params": params}


class StatelessClient(HttpClient):
    """2026-07-28: each request says all that is needed."""

    capabilities: ClassVar[Json] = {}

    async def ask(self, method: str, params: Json) -> Json:
        request_id = next(self.request_ids)
        body = {
            "jsonrpc": "2.0",
            "id": request_id,
            "method": method,
            "params": params | {"_meta": modern_meta(self.capabilities)},
        }
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if (item := params.get("name") or params.get("taskId")) is not None:
            headers["Mcp-Name"] = item
        message, _ = await self.post(body, headers)
        return result_of(message, request_id)

    async def call(self, tool: str, arguments: Json) -> None:
        await self.ask("tools/call", {"name": tool, "arguments": arguments})


class ParkingClient(StatelessClient):
    """Calls a tool that asks it something: the call is parked, and its retry goes on with it."""

    capabilities: ClassVar[Json] = {"elicitation": {}}
    backends = (PAIR, ALONE)

    async def call_once(self, backend: str, tool: str) -> None:
        argument = uuid.uuid4().hex
        await self.record(backend, argument, f"{backend}__{ASK}", {"argument": argument})

    async def call(self, tool: str, arguments: Json) -> None:
        call = {"name": tool, "arguments": arguments}
        result = await self.ask("tools/call", call)
        if result.get("resultType") != "input_required":
            raise Refused(f"{WRONG}: nobody was asked: {json.dumps(result)[:200]}")
        await asyncio.sleep(POLL_S)
        answers = {key: {"action": "accept", "content": {"name": "Ada"}} for key in result["inputRequests"]}
        await self.ask("tools/call", {**call, "requestState": result["requestState"], "inputResponses": answers})


class TaskClient(StatelessClient):
    """Calls a tool that takes so long that the call becomes a task, and asks for it until it has ended."""

    capabilities: ClassVar[Json] = {"extensions": {TASKS: {}}}
    backends = (PAIR, ALONE)
    within_s = 20.0

    async def call_once(self, backend: str, tool: str) -> None:
        argument = uuid.uuid4().hex
        await self.record(backend, argument, f"{backend}__{WORK}", {"argument": argument, "seconds": WORK_S})

    async def call(self, tool: str, arguments: Json) -> None:
        task = await self.ask("tools/call", {"name": tool, "arguments": arguments})
        if "taskId" not in task:
            return  # it was quicker than that
        while task["status"] not in _TERMINAL:
            await asyncio.sleep(POLL_S)
            task = await self.ask("tasks/get", {"taskId": task["taskId"]})
        if task["status"] != "completed":
            raise Refused("task_failed")


class MovingSessionClient(SessionClient):
    moves = True


class MovingParkingClient(ParkingClient):
    moves = True


class MovingTaskClient(TaskClient):
    moves = True


class EventStreamClient(CallingClient):
    """HTTP+SSE of 2024-11-05: answers come on the stream that it holds open."""

    is_bound = True
    _http: aiohttp.ClientSession | None = None
    _reading: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        self._waiting: dict[object, asyncio.Future[Any]] = {}
        connected: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(self._http, connected))
        self._endpoint = await connected
        result_of(await self._ask("initialize", initialize_params()), 0)
        await self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    @property
    def is_connected(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def _read(self, http: aiohttp.ClientSession, connected: asyncio.Future[str]) -> None:
        base = f"{self.url}/mcp/sse/connect"
        try:
            async with http.get(f"{base}?user_id={self.name}") as response:
                response.raise_for_status()
                async for fields in sse_events(response):
                    if fields.get("event") == "endpoint":
                        connected.set_result(urljoin(base, fields["data"]))
                    elif fields.get("event") == "message":
                        message = json.loads(fields["data"])
                        if (waiting := self._waiting.pop(message.get("id"), None)) is not None and not waiting.done():
                            waiting.set_result(message)
        except (OSError, aiohttp.ClientError):
            pass
        for waiting in (connected, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(aiohttp.ClientConnectionError("the stream has ended"))
                waiting.exception()  # whoever waited may have left

    async def call(self, tool: str, arguments: Json) -> None:
        request_id = next(self.request_ids)
        result_of(await self._ask("tools/call", {"name": tool, "arguments": arguments}, request_id), request_id)

    async def _ask(self, method: str, params: Json, request_id: int = 0) -> Any:
        waiting = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        if not self.is_connected:
            waiting.cancel()
            raise aiohttp.ClientConnectionError("the stream has ended")
        refused = await self._post({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        if refused is not None:
            waiting.cancel()
            return refused
        return await waiting

    async def _post(self, body: Json) -> Any:
        """None where it was accepted; else what refuses it."""
        assert self._http is not None
        async with self._http.post(self._endpoint, json=body) as response:
            if response.status == 202:
                return None
            refused = await response.json()
            if refused.get("error", {}).get("data", {}).get("reason") == "session_not_found":
                # Here a session is its stream: what ended with the stream is no loss beside it.
                raise aiohttp.ClientConnectionError("the stream has ended")
            return refused

    async def close(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        http, self._http = self._http, None
        if http is not None:
            await http.close()
