"""HTTP and WebSocket servers whose answers the test writes, on loopback, in a loop of their own test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def odd_http_server(**routes: Handler) -> AsyncIterator[str]:
    """Serve each handler at the path of its name, every verb; gives the URL without a path."""
    application = web.Application()
    for name, handler in routes.items():
        application.router.add_route("*", f"/{name}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def event_stream(*chunks: bytes, stays_open: bool = True) -> Handler:
    """Answer with these bytes of an event stream."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if stays_open:
            await asyncio.sleep(60)
        return response

    return handle


def answer(status: int = 202, **headers: str) -> Handler:
    """Answer with this status and nothing else. Header names are written with _ for -."""

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return handle
