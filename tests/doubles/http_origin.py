"""An HTTP server that writes its answers byte by byte, and the client that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mcp_gateway.transports.upstream.http.http1_client import Http1Client
from mcp_gateway.transports.upstream.http.server_connection import ExchangeCut

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSE_DELIMITED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Origin:
    """Answers each request with the next of `answers`, and keeps what was asked. None closes the connection."""

    def __init__(self, *answers: bytes | None, closes: bool = False) -> None:
        self._answers = list(answers)
        self._closes = closes
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0
        self.port = 0

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
                self.requests.append(head + await reader.readexactly(length))
                answer = self._answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if self._closes:
                    break
            else:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()


@asynccontextmanager
async def asking(origin: Origin, **headers: str) -> AsyncIterator[Http1Client]:
    server = await asyncio.start_server(origin.converse, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    client = Http1Client(f"http://127.0.0.1:{origin.port}/mcp", headers)
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def get(
    client: Http1Client, origin: Origin, timeout_s: float = 5.0, *, may_repeat: bool = False
) -> tuple[int, dict[str, str], bytes]:
    url = f"http://127.0.0.1:{origin.port}/mcp"
    async with client.request("GET", url, {}, timeout_s=timeout_s, may_repeat=may_repeat) as answer:
        return answer.status, answer.headers, await answer.read()


async def cut(client: Http1Client, origin: Origin) -> ExchangeCut:
    with pytest.raises(ExchangeCut) as caught:
        await get(client, origin)
    return caught.value
