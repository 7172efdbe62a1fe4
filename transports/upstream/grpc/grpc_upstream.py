"""The strategy towards gRPC servers, by MCP's own proto or by reflection; loads what it needs, an extra, with the first."""

from __future__ import annotations

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.strategies import ReplicaTarget
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.upstream.adapted.adapted_conversation import AdaptedConversation


class GrpcUpstream:
    """Registry strategy for replicas at grpc:// and grpcs://, which speak MCP, and for backends with `grpc`, which do not."""

    name = "grpc_upstream"
    schemes = frozenset({"grpc", "grpcs"})

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        try:
            from .grpc_source import GrpcSource
            from .mcp_conversation import McpOverGrpc
        except ImportError:
            return NotInstalled()
        if target.backend.replicas:
            return McpOverGrpc(target)
        return AdaptedConversation(GrpcSource(target.backend, target.max_message_bytes))


class NotInstalled:
    """The wire to a server that nothing here can speak to."""

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        raise _missing()

    async def probe(self, timeout_s: float) -> None:
        raise _missing()

    async def close(self) -> None:
        """There is nothing to let go of."""


def _missing() -> UpstreamError:
    return UpstreamError(Fate.UNREACHABLE, "gRPC is not installed here: pip install 'mcp-gateway[grpc]'")
