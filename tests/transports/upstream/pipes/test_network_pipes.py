"""Servers of HTTP+SSE and WebSocket: each address leads to its pipe, with what the backend is configured to show."""

from __future__ import annotations

import asyncio

import pytest

from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.pipes.http_sse import SsePipe
from mcp_gateway.transports.upstream.pipes.message_pipe import MessagePipe
from mcp_gateway.transports.upstream.pipes.network_pipes import NetworkUpstream, SseUpstream, WebSocketUpstream
from mcp_gateway.transports.upstream.pipes.pipe_target import PipeTarget
from mcp_gateway.transports.upstream.pipes.websocket import WebSocketPipe
from tests.doubles.ports import free_port


@pytest.mark.parametrize(
    ("strategy", "kind", "scheme", "of_url"),
    [
        (SseUpstream, SsePipe, "sse+http", "http"),
        (SseUpstream, SsePipe, "sse+https", "https"),
        (WebSocketUpstream, WebSocketPipe, "ws", "ws"),
        (WebSocketUpstream, WebSocketPipe, "wss", "wss"),
    ],
)
def test_a_replica_is_reached_by_its_own_kind_of_pipe(
    strategy: type[NetworkUpstream], kind: type[MessagePipe], scheme: str, of_url: str
) -> None:
    opened: list[PipeTarget] = []
    place = f"://127.0.0.1:{free_port()}/"

    class WithoutServer(strategy):  # type: ignore[misc, valid-type]
        def pipe(self, target: PipeTarget) -> MessagePipe:
            opened.append(target)
            pipe: MessagePipe = super().pipe(target)
            assert isinstance(pipe, kind)
            return pipe

    table = {"backends": [{"name": "b", "replicas": [scheme + place], "headers": {"X-Key": "k"}}]}
    backend = settings_from_mapping(table, "gateway.toml").backends[0]

    async def body() -> None:
        conversation = WithoutServer().connect(ReplicaTarget(backend, 0, 10_000))
        assert opened == []
        with pytest.raises(UpstreamError, match="cannot connect"):
            await conversation.probe(5.0)
        await conversation.close()

    asyncio.run(body())
    assert {(each.url, each.headers["X-Key"], each.max_message_bytes) for each in opened} == {(of_url + place, "k", 10_000)}
