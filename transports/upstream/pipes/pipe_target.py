"""Where a pipe over the network leads to, what it shows there, and what it connects with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
import attrs

from mcp_gateway.transports.ports.upstream_port import ShowToken
from mcp_gateway.transports.upstream.http.client_tls import ClientTls
from mcp_gateway.transports.upstream.http.failure_text import failure_text

from .message_pipe import PipeClosed

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
