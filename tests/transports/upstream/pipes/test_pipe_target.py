"""A certificate that cannot be read is no connection, and only where it would be shown."""

from __future__ import annotations

import asyncio

import pytest

from mcp_gateway.transports.upstream.http.client_tls import ClientTls
from mcp_gateway.transports.upstream.pipes.message_pipe import PipeClosed
from mcp_gateway.transports.upstream.pipes.pipe_target import PipeTarget


@pytest.mark.parametrize("url", ["https://server.example/sse", "wss://server.example/"])
def test_a_certificate_that_cannot_be_read_closes_the_pipe(url: str) -> None:
    unreadable = ClientTls("/nowhere.pem", "/nowhere-key.pem")

    async def body() -> None:
        with pytest.raises(PipeClosed, match="certificate"):
            PipeTarget(url, {}, 10_000, unreadable).connector()
        await PipeTarget(url, {}, 10_000).connector().close()
        await PipeTarget(url.replace("s:", ":", 1), {}, 10_000, unreadable).connector().close()

    asyncio.run(body())
