"""A server of which only the URL is known: spoken to over Streamable HTTP, or HTTP+SSE where it turns out to know only that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.strategies import ReplicaTarget, UpstreamTransport, url_of
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)

SpeaksSse = Callable[[str, Mapping[str, str]], Awaitable[bool | None]]
"""(URL, headers): whether the server speaks HTTP+SSE; None where it gives no sign of either transport.

Raises: UpstreamError where it cannot be asked.
"""

_LONGEST_CHOICE_S: Final = 20.0


class EitherTransport:
    """Registry strategy for auto+http(s) replicas: leaves each to one of two others."""

    name = "either_http_upstream"
    schemes = frozenset({"auto+http", "auto+https"})

    def __init__(self, streamable_http: UpstreamTransport, sse: UpstreamTransport, speaks_sse: SpeaksSse) -> None:
        self._streamable_http = streamable_http
        self._sse = sse
        self._speaks_sse = speaks_sse

    def connect(self, target: ReplicaTarget) -> UpstreamConversation:
        def connect(is_sse: bool) -> UpstreamConversation:
            transport = self._sse if is_sse else self._streamable_http
            return transport.connect(target)

        url = url_of(target.address)
        return EitherConversation(connect, lambda: self._speaks_sse(url, target.backend.headers))


class EitherConversation:
    """The wire to one replica. What was chosen is kept; where the server gave no sign, the next probe asks again."""

    def __init__(self, connect: Callable[[bool], UpstreamConversation], speaks_sse: Callable[[], Awaitable[bool | None]]) -> None:
        self._connect = connect
        self._speaks_sse = speaks_sse
        self._wire: UpstreamConversation | None = None
        self._is_sure = False
        self._choosing: SharedTasks[None, UpstreamConversation] = SharedTasks()

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        """The wire's own exchange, once it is chosen."""
        return self._choose_first(request, on_event) if self._wire is None else self._wire.exchange(request, on_event)

    async def _choose_first(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        wire = await self._chosen(request.timeout_s)
        return await wire.exchange(request, on_event)

    async def probe(self, timeout_s: float) -> None:
        wire = self._wire if self._wire is not None and self._is_sure else await self._chosen(timeout_s)
        await wire.probe(timeout_s)

    async def _chosen(self, timeout_s: float | None) -> UpstreamConversation:
        """Ask the server, once for all who wait."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._choosing.join(None, self._choose)
        except TimeoutError:
            raise UpstreamError(Fate.UNREACHABLE, "the server did not answer in time", reason="upstream_timeout") from None

    async def _choose(self) -> UpstreamConversation:
        try:
            async with asyncio.timeout(_LONGEST_CHOICE_S):
                is_sse = await self._speaks_sse()
        except TimeoutError:
            raise UpstreamError(Fate.UNREACHABLE, "the server did not answer in time", reason="upstream_timeout") from None
        self._is_sure = is_sse is not None
        if self._wire is None:
            self._wire = self._connect(bool(is_sse))
        elif is_sse:  # until now it gave no sign, and was taken to speak the other one
            former, self._wire = self._wire, self._connect(True)
            await former.close()
        return self._wire

    async def close(self) -> None:
        self._choosing.cancel()
        if self._wire is not None:
            await self._wire.close()
