"""Pipes over the network: where one leads to and what it shows there, and the strategy of servers that are reached by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Protocol

import aiohttp
import attrs

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.strategies import url_of
from mcp_gateway.transports.ports.upstream_port import ConnectionToken, ShowToken, UpstreamConversation, shows_no_token
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.upstream.http.client_tls import ClientTls
from mcp_gateway.transports.upstream.http.failure_text import failure_text

from .message_pipe import MessagePipe, PipeClosed
from .pipe_conversation import PipeConversation

CONNECT_TIMEOUT_S: Final = 5.0


@attrs.frozen
class PipeTarget:
    """tls: what is shown where the connection is encrypted. show: gives the gateway's own token, where the server wants one."""

    url: str
    headers: Mapping[str, str]
    max_message_bytes: int
    tls: ClientTls = attrs.field(factory=ClientTls)
    show: ShowToken | None = None

    def connector(self) -> aiohttp.TCPConnector:
        """Any number of connections.

        Raises: PipeClosed where the certificate of the gateway cannot be read.
        """
        if not self.url.startswith(("https:", "wss:")):
            return aiohttp.TCPConnector(limit=0)
        try:
            return aiohttp.TCPConnector(limit=0, ssl=self.tls.context())
        except OSError as error:
            raise PipeClosed(f"the certificate to show cannot be used: {failure_text(error)}") from None


class MakePipe(Protocol):
    """Of a pipe that is not open yet."""

    def __call__(self, target: PipeTarget, /) -> MessagePipe: ...


class NetworkUpstream:
    """What the registry strategies of such servers share."""

    pipe: ClassVar[MakePipe]

    def __init__(self, token_of: ConnectionToken = shows_no_token) -> None:
        self._token_of = token_of

    def connect(
        self,
        backend: BackendSettings,
        replica_index: int,
        max_message_bytes: int,
        max_overflow: int = 0,
        era: ServerEra | None = None,
    ) -> UpstreamConversation:
        url = url_of(backend.replicas[replica_index])
        target = PipeTarget(url, backend.headers, max_message_bytes, ClientTls.of(backend), self._token_of(backend))
        return PipeConversation(
            backend.replica_ids[replica_index],
            lambda: self.pipe(target),
            backend=backend.name,
            max_pipes=backend.pool_size + max_overflow,
            era=era or ServerEra(backend.protocol),
            longest_call_s=backend.request_timeout,
        )
