"""A wire that shows its server who asks: nothing of a client's own goes there."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.hash_keys import Asker
from mcp_gateway.transports.ports.strategies import ReplicaTarget, WireTransport
from mcp_gateway.transports.ports.upstream_port import (
    CredentialRefused,
    EventHandler,
    ShowToken,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.server_era import ServerEra

from .challenge import Challenge, read_challenge
from .token_sources import TokenSource
from .tokens import Tokens

MakeSource = Callable[[BackendSettings], TokenSource]
"""The one source of a backend in this cell, whichever of its replicas asks."""


_Answer = TypeVar("_Answer")


class AuthorizedConversation:
    """Shows the tokens of a source. A request that the server refuses for its token has not run, and is repeated once."""

    def __init__(self, wire: UpstreamConversation, source: TokenSource) -> None:
        self._wire = wire
        self._source = source

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        async def ask(shown: Mapping[str, str]) -> UpstreamAnswer:
            return await self._wire.exchange(msgspec.structs.replace(request, headers={**request.headers, **shown}), on_event)

        return await _ask_with_token(self._source, Asker.of(request.hash_keys), ask)

    async def probe(self, timeout_s: float) -> None:
        """Nobody in particular asks: a server that wants to know who it is has answered."""
        with contextlib.suppress(CredentialRefused):
            await self._wire.probe(timeout_s)

    async def close(self) -> None:
        await self._wire.close()


class AuthorizingTransport:
    """A strategy whose wires show tokens to those servers that get some; any other's wire is as it would be without."""

    def __init__(self, transport: WireTransport, source_of: MakeSource) -> None:
        self._transport = transport
        self._source_of = source_of
        self.name = transport.name
        self.schemes = transport.schemes

    def connect(self, target: ReplicaTarget, era: ServerEra) -> UpstreamConversation:
        wire, backend = self._transport.connect(target, era), target.backend
        return AuthorizedConversation(wire, self._source_of(backend)) if backend.gets_tokens else wire


def connection_token(backend: BackendSettings, source_of: MakeSource) -> ShowToken | None:
    """How connections that all who use the backend share show its token; None where there is none to show."""
    if not backend.gets_tokens:
        return None
    source = source_of(backend)

    async def show(ask: Callable[[Mapping[str, str]], Awaitable[_Answer]]) -> _Answer:
        return await _ask_with_token(source, Asker(), ask)

    return show


async def _ask_with_token(source: TokenSource, asker: Asker, ask: Callable[[Mapping[str, str]], Awaitable[_Answer]]) -> _Answer:
    """As `ShowToken`."""
    shown = await source.token(asker)
    try:
        return await ask(_headers(shown))
    except CredentialRefused as refused:
        shown = await source.another(asker, shown, _challenge(refused))
    try:
        return await ask(_headers(shown))
    except CredentialRefused as refused:
        raise source.refused_again(asker, shown, _challenge(refused)) from None


def _headers(tokens: Tokens | None) -> dict[str, str]:
    return {} if tokens is None else {"authorization": tokens.authorization}


def _challenge(refused: CredentialRefused) -> Challenge:
    return read_challenge(refused.status, refused.headers) or Challenge(status=refused.status)
