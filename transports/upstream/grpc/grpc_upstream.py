"""The strategy towards gRPC servers, by MCP's own proto or by reflection; loads what it needs, an extra, with the first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import (
    ConnectionToken,
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    shows_no_token,
)
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.upstream.adapted.adapted_conversation import AdaptedConversation


class GrpcUpstream:
    """Registry strategy for replicas at grpc:// and grpcs://, which speak MCP, and for backends with `grpc`, which do not."""

    name = "grpc_upstream"
    schemes = frozenset({"grpc", "grpcs"})

    def __init__(self, token_of: ConnectionToken = shows_no_token) -> None:
        self._token_of = token_of

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        show = self._token_of(target.backend)

        def load() -> Callable[[], UpstreamConversation]:
            from .grpc_source import GrpcSource
            from .mcp_conversation import McpOverGrpc

            if target.backend.replicas:
                return lambda: McpOverGrpc(target, show)
            return lambda: AdaptedConversation(GrpcSource(target.backend, target.max_message_bytes, show))

        return LoadedWire(load)


class LoadedWire:
    """A wire whose code comes with its first use, beside the event loop: to import gRPC takes a good part of a second.

    load: what imports, in a thread; gives what makes the wire, on the loop.
    """

    def __init__(self, load: Callable[[], Callable[[], UpstreamConversation]]) -> None:
        self._load = load
        self._loading: SharedTasks[None, UpstreamConversation] = SharedTasks()
        self._loaded: UpstreamConversation | None = None

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        return await (await self._wire()).exchange(request, on_event)

    async def probe(self, timeout_s: float) -> None:
        await (await self._wire()).probe(timeout_s)

    async def close(self) -> None:
        self._loading.cancel()
        if self._loaded is not None:
            await self._loaded.close()

    async def _wire(self) -> UpstreamConversation:
        """Raises: UpstreamError where gRPC is not installed."""
        return self._loaded or await self._loading.join(None, self._come)

    async def _come(self) -> UpstreamConversation:
        try:
            make = await asyncio.to_thread(self._load)
        except ImportError:
            text = "gRPC is not installed here: pip install 'mcp-gateway[grpc]'"
            raise UpstreamError(Fate.UNREACHABLE, text) from None
        self._loaded = make()
        return self._loaded
