"""A web page of an application that has the gateway behind its own origin, opened in headless Chromium.

The page is served here, everything else is passed on to the gateway, as a proxy in front of both would do: so the relative URLs
of the seed document's examples reach the gateway.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

_HEAD_BYTES = 65_536
_SEEN = "/seen"


class SeedPage:
    """What the page has told. seen: what it posted to `/seen`, in order; url: where a browser opens it."""

    def __init__(self, gateway_port: int, files: Mapping[str, tuple[str, bytes]]) -> None:
        self._gateway_port = gateway_port
        self._files = files
        self._passed_on: set[asyncio.StreamWriter] = set()
        self.seen: list[Any] = []
        self.url = ""

    def cut(self) -> None:
        """Cut every connection between the browser and the gateway."""
        for writer in list(self._passed_on):
            writer.transport.abort()

    async def until(self, check: Callable[[list[Any]], bool], timeout_s: float = 30.0) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not check(self.seen):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"the page has told: {self.seen}") from None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode().partition("?")[0]
            if path == _SEEN:
                self.seen.append(json.loads(await reader.readexactly(_content_length(head))))
                writer.write(_answer("text/plain", b"ok"))
            elif path in self._files:
                writer.write(_answer(*self._files[path]))
            elif path.startswith("/mcp"):
                await self._pass_on(head, reader, writer)
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self._gateway_port)
        to_gateway.write(head)
        self._passed_on |= {writer, to_gateway}
        await asyncio.gather(_copy(reader, to_gateway), _copy(from_gateway, writer))
        self._passed_on -= {writer, to_gateway}


@asynccontextmanager
async def seed_page(gateway_port: int, files: Mapping[str, tuple[str, bytes]]) -> AsyncIterator[SeedPage]:
    """Serve the page and open it. files: {path: (content type, bytes)}; "/" is the page."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "Chromium is needed for the tests in a browser"
    page = SeedPage(gateway_port, files)
    server = await asyncio.start_server(page.serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    page.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        nothing = asyncio.subprocess.DEVNULL
        browser = await asyncio.create_subprocess_exec(chromium, *options, page.url, stdout=nothing, stderr=nothing)
        try:
            yield page
        finally:
            browser.terminate()
            await browser.wait()
            page.cut()
            server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def _answer(content_type: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _content_length(head: bytes) -> int:
    lines = head.decode("latin-1").lower().split("\r\n")
    return next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
