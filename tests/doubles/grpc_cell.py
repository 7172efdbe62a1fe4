"""A whole cell that listens for gRPC, and clients by the stubs of the proto's package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import msgspec
import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto
from mcp_grpc_transport_proto.mcp_pb2_grpc import McpStub

from tests.doubles.ports import free_port
from tests.doubles.running_cell import DEMO, RunningCell, cell_settings, running_cell

LONG_S = 30.0


@asynccontextmanager
async def serving(**tables: Any) -> AsyncIterator[tuple[RunningCell, str]]:
    """(the cell, where it listens for gRPC)"""
    tables["grpc"] = {"port": free_port(), **tables.get("grpc", {})}
    settings = cell_settings(tables.pop("backends", (DEMO,)), **tables)
    async with running_cell(settings) as cell:
        yield cell, f"localhost:{settings.grpc.port}"


@asynccontextmanager
async def client(address: str, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    opened = grpc.aio.insecure_channel(address, options)
    if credentials is not None:
        opened = grpc.aio.secure_channel(address, credentials, options)
    async with opened as channel:
        yield McpStub(channel)


def run(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scene(), 60))


def call(name: str, **arguments: Any) -> Any:
    asked = proto.CallToolRequest.Request(name=name)
    asked.arguments.update(arguments)
    return proto.CallToolRequest(request=asked)


async def refused(answer: Awaitable[Any]) -> tuple[str, str]:
    """(status, reason of the contract or "")"""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answer
    trailers = dict(raised.value.trailing_metadata() or ())
    data = msgspec.json.decode(trailers.get("mcp-error-data-bin", b"{}"))
    return raised.value.code().name, data.get("reason", "")
