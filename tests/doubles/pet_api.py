"""An HTTP API of pets, as its public description has it: what a backend with `openapi` speaks to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
from aiohttp import web

PETSTORE = Path(__file__).parents[1] / "transports" / "upstream" / "openapi" / "descriptions" / "petstore.json"
KEY = "Bearer let-me-in"


@attrs.define
class PetApi:
    """url: without a path. asked: (method, path, its Authorization) of each request."""

    url: str = ""
    asked: list[tuple[str, str, str]] = attrs.field(factory=list)
    pets: dict[str, dict[str, object]] = attrs.field(factory=lambda: {"1": {"id": 1, "name": "Rex"}})

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.router.add_get("/openapi.json", self._describe)
        application.router.add_get("/v1/pets", self._list)
        application.router.add_post("/v1/pets", self._create)
        application.router.add_get("/v1/pets/{id}", self._show)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: object) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs, request.headers.get("Authorization", "")))
        if request.path.startswith("/v1") and request.method != "OPTIONS" and request.headers.get("Authorization") != KEY:
            return web.json_response({"code": 401, "message": "who are you?"}, status=401)
        return await handler(request)  # type: ignore[operator,no-any-return]

    async def _describe(self, _: web.Request) -> web.Response:
        return web.json_response({**json.loads(PETSTORE.read_text()), "servers": [{"url": "/v1"}]})

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([*self.pets.values()][: int(request.query.get("limit", "100"))])

    async def _create(self, request: web.Request) -> web.Response:
        pet = await request.json()
        self.pets[str(pet["id"])] = pet
        return web.Response(status=201)

    async def _show(self, request: web.Request) -> web.Response:
        pet = self.pets.get(request.match_info["id"])
        if pet is None:
            return web.json_response({"code": 404, "message": "no such pet"}, status=404)
        return web.json_response(pet)


@contextmanager
def pet_api() -> Iterator[PetApi]:
    """Serve on a thread of its own."""
    api, has_begun, loop = PetApi(), threading.Event(), asyncio.new_event_loop()
    is_over = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(api.application(), shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        has_begun.set()
        await is_over.wait()
        await runner.cleanup()

    serving = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    serving.start()
    has_begun.wait(10)
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(is_over.set)
        serving.join(10)
        loop.close()
