"""The strategies towards servers that are reached by a pipe over the network; what opens one is loaded with the first of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from mcp_gateway.transports.ports.strategies import ReplicaTarget, url_of
from mcp_gateway.transports.ports.upstream_port import ConnectionToken, UpstreamConversation, shows_no_token
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.upstream.http.client_tls import ClientTls

from .message_pipe import MessagePipe
from .pipe_conversation import PipeConversation

if TYPE_CHECKING:
    from .pipe_target import PipeTarget


class NetworkUpstream(ABC):
    """What the registry strategies of such servers share."""

    def __init__(self, token_of: ConnectionToken = shows_no_token) -> None:
        self._token_of = token_of

    @abstractmethod
    def pipe(self, target: PipeTarget) -> MessagePipe:
        """One that is not open yet."""

    def connect(self, target: ReplicaTarget, era: ServerEra | None = None) -> UpstreamConversation:
        from .pipe_target import PipeTarget

        backend, url = target.backend, url_of(target.address)
        pipe_target = PipeTarget(url, backend.headers, target.max_message_bytes, ClientTls.of(backend), self._token_of(backend))
        return PipeConversation(
            target.replica_id,
            lambda: self.pipe(pipe_target),
            backend=backend.name,
            max_pipes=target.max_connections,
            era=era or ServerEra(backend.protocol),
            longest_call_s=backend.request_timeout,
        )


class SseUpstream(NetworkUpstream):
    """Registry strategy for sse+http(s) replicas."""

    name = "http_sse_upstream"
    schemes = frozenset({"sse+http", "sse+https"})

    def pipe(self, target: PipeTarget) -> MessagePipe:
        from .http_sse import SsePipe

        return SsePipe(target)


class WebSocketUpstream(NetworkUpstream):
    """Registry strategy for ws(s) replicas."""

    name = "websocket_upstream"
    schemes = frozenset({"ws", "wss"})

    def pipe(self, target: PipeTarget) -> MessagePipe:
        from .websocket import WebSocketPipe

        return WebSocketPipe(target)
