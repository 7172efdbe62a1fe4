"""Where one attack is carried out: a gateway, an address of the attacker's own, and connections that end with the attack."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any

import aiohttp
import attrs

from tests.end_to_end.running_gateway import RunningGateway

TIMEOUT_S = 15.0


@attrs.frozen
class RawAnswer:
    """What came back for bytes. status: 0 where there was no HTTP answer; body: all that followed its headers."""

    status: int
    head: str
    body: bytes
    is_closed: bool

    @property
    def reads(self) -> str:
        """The reason of a refusal, the status where the answer has none, or that the connection was closed without one."""
        if self.status == 0:
            return "closed" if self.is_closed else "nothing"
        return reason_in(self.body) or f"status {self.status}"


def reason_in(body: bytes) -> str:
    """The reason in a refusal as JSON; "" where there is none."""
    try:
        error = json.JSONDecoder().raw_decode(body.decode())[0]["error"]
        return str(error["data"]["reason"])
    except (ValueError, KeyError, TypeError):
        return ""


class Arena:
    """`async with Arena(...)`: what the tries of one attack share.

    gateway: that is attacked. servers: doubles behind it, by the name of their backend.
    address: from which all connections of this attack come; ordinary clients have another one.
    held:    what has to last until the last try has ended: connections that are left open, say.
    http:    a client for well-formed requests.
    key:     the credential that this one shows: "" shows none, None that for tests, where the gateway has one.
    """

    def __init__(self, gateway: RunningGateway, address: str, servers: Mapping[str, Any], key: str | None = None) -> None:
        self.gateway = gateway
        self.address = address
        self.servers = servers
        self.held = AsyncExitStack()
        self.numbers: Iterator[int] = itertools.count(1)
        self._key = gateway.credential if key is None else key

    async def __aenter__(self) -> Arena:
        connector = aiohttp.TCPConnector(local_addr=(self.address, 0), limit=0, force_close=True)
        shown = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self.http = await self.held.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers=shown)
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self.held.aclose()

    def another(self) -> Arena:
        """One of somebody else, at an address that nobody attacks from."""
        return Arena(self.gateway, "127.0.255.1", self.servers)

    def known_as(self, key: str) -> Arena:
        """The same place for a client with this credential, or with none (""), who comes from the same address."""
        return Arena(self.gateway, self.address, self.servers, key)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.gateway.port}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that is held until the attack ends."""
        reader, writer = await self._open()
        self.held.callback(writer.close)
        return reader, writer

    async def _open(self, port: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port or self.gateway.port, local_addr=(self.address, 0), limit=1 << 22)

    async def say(self, *parts: bytes, port: int | None = None, patience_s: float = TIMEOUT_S, then_s: float = 0.05) -> RawAnswer:
        """Write bytes on a connection of their own, and read the first answer and what follows it for `then_s`."""
        reader, writer = await self._open(port)
        received, is_closed = b"", False
        try:
            with suppress(ConnectionError):  # refused before all of it was there: the answer, if any, has arrived
                for part in parts:
                    writer.write(part)
                    await writer.drain()
            try:
                while True:
                    is_answered = b"\r\n\r\n" in received
                    async with asyncio.timeout(then_s if is_answered else patience_s):
                        part = await reader.read(1 << 16)
                    if not part:
                        is_closed = True
                        break
                    received += part
            except TimeoutError:
                pass
            except ConnectionError:
                is_closed = True
        finally:
            writer.close()
        head, _, body = received.partition(b"\r\n\r\n")
        is_http = head.startswith(b"HTTP/1.")
        status = int(head.split(b" ", 2)[1]) if is_http else 0
        return RawAnswer(status, head.decode("latin-1"), body if is_http else received, is_closed)

    async def post(
        self,
        body: bytes = b"",
        *lines: str,
        path: str = "/mcp",
        verb: str = "POST",
        host: str | None = None,
        then_s: float = 0.05,
    ) -> RawAnswer:
        """A request whose head is these lines besides its host and what JSON needs; a length of its own unless one is given."""
        shown = [f"{verb} {path} HTTP/1.1", f"Host: {self.host if host is None else host}"]
        shown += ["Content-Type: application/json", "Accept: application/json, text/event-stream", *lines]
        names = {line.partition(":")[0].strip().lower() for line in lines}
        if not names & {"content-length", "transfer-encoding"}:
            shown.append(f"Content-Length: {len(body)}")
        return await self.say("\r\n".join([*shown, "", ""]).encode("utf-8", "surrogateescape") + body, then_s=then_s)
