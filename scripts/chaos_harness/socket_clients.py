"""Clients over WebSocket and Phoenix channels, and the publisher, which is one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.protocol import State
from websockets.typing import Subprotocol

from .clients import CUTS, RETRY_S, CallingClient, Json, Refused, initialize_params, result_of
from .history import Acknowledged
from .recorder import Recorder

TOPIC = "client.chaos"
REPLY_TIMEOUT_S = 5.0


class WebSocketClient(CallingClient):
    """MCP over WebSocket: a session is its connection."""

    is_bound = True
    _connection: ClientConnection | None = None

    async def open(self) -> None:
        address = f"ws{self.url[4:]}/mcp/ws?user_id={self.name}"
        self._connection = await connect(address, subprotocols=[Subprotocol("mcp")])
        await self._ask("initialize", initialize_params())
        await self._connection.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))

    async def call(self, tool: str, arguments: Json) -> None:
        await self._ask("tools/call", {"name": tool, "arguments": arguments})

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.state is State.OPEN

    async def _ask(self, method: str, params: Json) -> Json:
        assert self._connection is not None
        request_id = next(self.request_ids)
        await self._connection.send(json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}))
        while "method" in (message := json.loads(await self._connection.recv())):
            pass
        return result_of(message, request_id)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class PhoenixSocket:
    """One Phoenix socket with one channel, serializer 2.0.0."""

    def __init__(self, connection: ClientConnection, topic: str) -> None:
        self._connection = connection
        self._topic = topic
        self._refs = itertools.count(1)

    @classmethod
    async def join(cls, url: str, name: str, topic: str, payload: Json | None = None) -> PhoenixSocket:
        """Raises: one of CUTS, Refused"""
        connection = await connect(f"ws{url[4:]}/mcp/websocket?vsn=2.0.0&user_id={name}")
        socket = cls(connection, topic)
        try:
            await socket.push("phx_join", payload or {})
            await socket.reply()
        except BaseException:
            await connection.close()
            raise
        return socket

    @property
    def is_connected(self) -> bool:
        return self._connection.state is State.OPEN

    async def push(self, event: str, payload: Json) -> None:
        await self._connection.send(json.dumps(["j", f"r{next(self._refs)}", self._topic, event, payload]))

    async def read(self) -> tuple[str, Any]:
        """(event, payload) of the next message."""
        message = json.loads(await self._connection.recv())
        return message[3], message[4]

    async def reply(self) -> Any:
        """What the gateway says to the last push.

        Raises: Refused
        """
        while True:
            event, payload = await self.read()
            if event == "phx_reply":
                if payload["status"] != "ok":
                    raise Refused(payload["response"].get("error", {}).get("data", {}).get("reason", "error"))
                return payload["response"]

    async def close(self) -> None:
        await self._connection.close()


class PhoenixClient(CallingClient):
    """Requests on a channel; the answer comes as a reply and as a push, of which it reads the push."""

    is_bound = True
    _socket: PhoenixSocket | None = None

    async def open(self) -> None:
        self._socket = await PhoenixSocket.join(self.url, self.name, "mcp:client.nothing")

    @property
    def is_connected(self) -> bool:
        return self._socket is not None and self._socket.is_connected

    async def call(self, tool: str, arguments: Json) -> None:
        assert self._socket is not None
        request_id = f"q{next(self.request_ids)}"
        params = {"name": tool, "arguments": arguments}
        await self._socket.push("request", {"method": "tools/call", "params": params, "id": request_id})
        while True:
            event, payload = await self._socket.read()
            if event == "response":
                result_of(payload, request_id)
                return

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()


async def keep_publishing(url: str, recorder: Recorder, stop: asyncio.Event, pause_s: float, numbers: Iterator[int]) -> None:
    """Publish numbers one after the other, and write down those that were acknowledged; none is published twice."""
    socket: PhoenixSocket | None = None
    while not stop.is_set():
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                if socket is None or not socket.is_connected:
                    socket = await PhoenixSocket.join(url, "publisher", "mcp:client.publisher")
                number = next(numbers)
                await socket.push("event", {"event": TOPIC.removeprefix("client."), "data": {"n": number}})
                await socket.reply()
            recorder.add(Acknowledged(number=number, at_s=recorder.now_s(), publisher=url))
        except (*CUTS, TimeoutError, Refused):
            if socket is not None:
                await asyncio.wait({asyncio.ensure_future(socket.close())}, timeout=1)
            socket = None
            await asyncio.sleep(RETRY_S)
        await asyncio.sleep(pause_s)
    if socket is not None:
        await socket.close()
