"""Lets the official SDK's client speak over a channel of a Phoenix socket: each message of MCP is a push of its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

_TOPIC = "mcp:client.nothing"  # a topic that nobody publishes on: the channel carries requests alone
_JOIN_REF = "join"


@asynccontextmanager
async def phoenix_transport(url: str) -> AsyncIterator[tuple[Any, Any]]:
    """The two streams of messages that `mcp.client.Client` asks of a transport."""
    to_client, from_channel = anyio.create_memory_object_stream[SessionMessage | Exception](100)
    to_channel, from_client = anyio.create_memory_object_stream[SessionMessage](100)
    refs = itertools.count(1)

    async def push(socket: ClientConnection, event: str, payload: Any) -> None:
        await socket.send(json.dumps([_JOIN_REF, str(next(refs)), _TOPIC, event, payload]))

    async def read(socket: ClientConnection) -> None:
        async with to_client:
            try:
                async for data in socket:
                    _, _, _, event, payload = json.loads(data)
                    if event in ("response", "event"):
                        message = types.jsonrpc_message_adapter.validate_python(_message(event, payload), by_name=False)
                        await to_client.send(SessionMessage(message))
            except (ConnectionClosed, anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass

    async def write(socket: ClientConnection) -> None:
        async with from_client:
            async for sent in from_client:
                values = sent.message.model_dump(mode="json", by_alias=True, exclude_unset=True)
                event = "request" if "method" in values else "response"
                members = ("id", "method", "params") if event == "request" else ("id", "result", "error")
                await push(socket, event, {name: values[name] for name in members if values.get(name) is not None})

    async with connect(url, max_size=None) as socket, anyio.create_task_group() as tasks:
        await push(socket, "phx_join", {"logLevel": None})
        joined = json.loads(await socket.recv())
        assert (joined[3], joined[4]["status"]) == ("phx_reply", "ok"), joined
        tasks.start_soon(read, socket)
        tasks.start_soon(write, socket)
        yield from_channel, to_channel
        tasks.cancel_scope.cancel()


def _message(event: str, payload: dict[str, Any]) -> dict[str, Any]:
    """The JSON-RPC message that was pushed: an answer, or what a server says or asks."""
    if event == "response":
        return {"jsonrpc": "2.0", **{name: payload[name] for name in ("id", "result", "error") if name in payload}}
    said = {"jsonrpc": "2.0", "method": payload["event"], "params": payload["data"]}
    return {**said, "id": payload["request_id"]} if "request_id" in payload else said
