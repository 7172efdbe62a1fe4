"""Lets the official SDK's client speak over a WebSocket: the SDK itself has no such transport any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol


@asynccontextmanager
async def websocket_transport(url: str) -> AsyncIterator[tuple[Any, Any]]:
    """The two streams of messages that `mcp.client.Client` asks of a transport."""
    to_client, from_socket = anyio.create_memory_object_stream[SessionMessage | Exception](100)
    to_socket, from_client = anyio.create_memory_object_stream[SessionMessage](100)

    async def read(socket: ClientConnection) -> None:
        async with to_client:
            try:
                async for data in socket:
                    message = types.jsonrpc_message_adapter.validate_json(data, by_name=False)
                    await to_client.send(SessionMessage(message))
            except (ConnectionClosed, anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass

    async def write(socket: ClientConnection) -> None:
        async with from_client:
            async for sent in from_client:
                await socket.send(sent.message.model_dump_json(by_alias=True, exclude_unset=True))

    async with connect(url, subprotocols=[Subprotocol("mcp")], max_size=None) as socket, anyio.create_task_group() as tasks:
        assert socket.subprotocol == "mcp"
        tasks.start_soon(read, socket)
        tasks.start_soon(write, socket)
        yield from_socket, to_socket
        tasks.cancel_scope.cancel()
