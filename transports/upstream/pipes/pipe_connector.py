"""What an HTTP session of a pipe connects with."""

from __future__ import annotations

import aiohttp

from mcp_gateway.transports.upstream.http.client_tls import ClientTls
from mcp_gateway.transports.upstream.http.failure_text import failure_text

from .message_pipe import PipeClosed


def pipe_connector(url: str, tls: ClientTls) -> aiohttp.TCPConnector:
    """Any number of connections, with the certificate of the gateway where they are encrypted.

    Raises: PipeClosed where that cannot be read.
    """
    if not url.startswith(("https:", "wss:")):
        return aiohttp.TCPConnector(limit=0)
    try:
        return aiohttp.TCPConnector(limit=0, ssl=tls.context())
    except OSError as error:
        raise PipeClosed(f"the certificate to show cannot be used: {failure_text(error)}") from None
