"""Tokens that a connection is given to show, by number, and servers that take only some."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from aiohttp import web

from mcp_gateway.transports.ports.upstream_port import CredentialRefused
from tests.doubles.odd_http_server import Handler

_Answer = TypeVar("_Answer")


class ShownTokens:
    """A `ShowToken` that gives out the next number where one is refused. refusals: (status, scheme of the challenge)."""

    def __init__(self) -> None:
        self.number = 0
        self.refusals: list[tuple[int, str]] = []

    async def __call__(self, ask: Callable[[Mapping[str, str]], Awaitable[_Answer]]) -> _Answer:
        try:
            return await ask(self._headers())
        except CredentialRefused as refused:
            self.refusals.append((refused.status, refused.headers["www-authenticate"]))
            self.number += 1
            return await ask(self._headers())

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer at-{self.number}"}


def takes_from(least: int, handler: Handler, status: int = 401, challenge: str = "Bearer") -> Handler:
    """Refuse tokens of lower numbers."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if int(request.headers["Authorization"].removeprefix("Bearer at-")) < least:
            return web.Response(status=status, headers={"WWW-Authenticate": challenge})
        return await handler(request)

    return handle
