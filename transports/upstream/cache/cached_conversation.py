"""A wire that remembers what its server lets it remember, and asks once for what several clients want at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.ports.hash_keys import principal_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
)
from mcp_gateway.transports.protocol.eras.own_requests import CACHE_ID, listen
from mcp_gateway.transports.protocol.eras.translation import result_type
from mcp_gateway.transports.protocol.mcp.change_notifications import EVERY_LIST
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import CACHEABLE_METHODS, NEWEST, is_modern

from .result_cache import CacheKey, ResultCache, cache_key, is_public, made_stale

_LISTEN_AGAIN_S: Final = 5.0


@attrs.define(eq=False)
class _Flight:
    """A request that is under way for all who want the same. principal: whose it is where the result turns out to be private."""

    principal: str
    task: asyncio.Task[UpstreamAnswer]
    waiting: int = 0


class CachedConversation:
    """Implements `UpstreamConversation` over another one. Requests of the stateless revision are looked up; all else passes.

    While it keeps results, it listens to the server's change notifications on a subscription of its own, so that a change
    that no client has subscribed to makes them stale as well; a server that has none is believed its `ttlMs`.
    """

    def __init__(self, wire: UpstreamConversation, now_s: Callable[[], float] = time.monotonic) -> None:
        self._wire = wire
        self._now_s = now_s
        self._cache = ResultCache()
        self._flights: dict[CacheKey, _Flight] = {}
        self._listening: asyncio.Task[None] | None = None

    def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> Coroutine[Any, Any, UpstreamAnswer]:
        """The wire's own exchange where there is nothing to look up: not even a coroutine lies between."""
        message = request.message
        if request.kind is RequestKind.STREAM:
            return self._wire.exchange(request, self._noting_changes(on_event))
        if not isinstance(message, Request) or message.method not in CACHEABLE_METHODS or not is_modern(request.revision):
            return self._wire.exchange(request, on_event)
        return self._look_up(request, message, on_event)

    async def _look_up(self, request: UpstreamRequest, message: Request, on_event: EventHandler) -> UpstreamAnswer:
        try:
            key = cache_key(message.method, message.params)
        except (msgspec.DecodeError, RecursionError):
            key = None  # the server shall say what is wrong with it
        if key is None:
            return await self._wire.exchange(request, on_event)
        principal = principal_of(request.hash_keys)
        flight = self._flights.get(key)
        if flight is not None and flight.principal != principal:
            # What comes back may be for the other one's eyes only: wait and see whether it is for everybody.
            await asyncio.wait((flight.task,))
        found = self._cache.find(key, principal, self._now_s())
        if found is not None:
            return UpstreamAnswer(200, Response(message.id, found, b""))
        return await self._fetch(key, principal, request, on_event)

    async def probe(self, timeout_s: float) -> None:
        await self._wire.probe(timeout_s)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
        for flight in self._flights.values():
            flight.task.cancel()
        await self._wire.close()

    # ---- one request for all who want the same

    async def _fetch(self, key: CacheKey, principal: str, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        flight = self._flights.get(key)
        is_own = flight is None or flight.principal != principal
        if flight is None or is_own:
            flight = _Flight(principal, asyncio.get_running_loop().create_task(self._fly(key, principal, request, on_event)))
            self._flights[key] = flight
        flight.waiting += 1
        try:
            answer = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                if self._flights.get(key) is flight:
                    del self._flights[key]  # nobody may join what is being given up
                flight.task.cancel()  # the last client that wanted it has gone
        message, response = request.message, answer.response
        if response is None or not isinstance(message, Request):
            return answer
        if not is_own and response.result and (_asks(response.result) or not (principal or is_public(response.result))):
            # It asks whoever made that request, and carries its state; or it is for that one's eyes only.
            return await self._wire.exchange(request, on_event)
        return msgspec.structs.replace(answer, response=response.to(message.id))

    async def _fly(self, key: CacheKey, principal: str, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        try:
            answer = await self._wire.exchange(request, on_event)
        finally:
            flight = self._flights.get(key)
            may_keep = flight is not None and flight.task is asyncio.current_task()
            if may_keep:
                del self._flights[key]
        result = answer.response.result if may_keep and answer.response is not None else b""
        if result and self._cache.keep(key, principal, result, self._now_s()):
            self._listen()
        return answer

    # ---- changes

    def _noting_changes(self, on_event: EventHandler) -> EventHandler:
        async def note(message: Message | None, event_id: str | None) -> None:
            if isinstance(message, Notification):
                self._note(message)
            await on_event(message, event_id)

        return note

    def _note(self, notification: Notification) -> None:
        """What shows the change is stale; so is what is under way, which may be older: it is neither joined nor kept."""
        try:
            for key in made_stale(self._flights, notification.method, notification.params):
                del self._flights[key]
            self._cache.note_change(notification.method, notification.params)
        except msgspec.DecodeError:
            self._flights.clear()
            self._cache.clear()

    def _listen(self) -> None:
        if self._listening is None or self._listening.done():
            self._listening = asyncio.get_running_loop().create_task(self._listen_while_needed())

    async def _listen_while_needed(self) -> None:
        async def on_event(message: Message | None, event_id: str | None) -> None:
            if isinstance(message, Notification):
                self._note(message)

        request = UpstreamRequest(kind=RequestKind.STREAM, message=listen(CACHE_ID, EVERY_LIST), revision=NEWEST)
        while len(self._cache):
            try:
                answer = await self._wire.exchange(request, on_event)
            except UpstreamError as error:
                if not error.fate.is_fault:
                    return  # it offers no such stream: its ttlMs is what there is
                self._cache.clear()  # what has changed while nobody listened is not known
                return
            if answer.response is not None and answer.response.error:
                return
            await asyncio.sleep(_LISTEN_AGAIN_S)


def _asks(result: bytes) -> bool:
    """Whether the result asks its client something. Source: MCP 2026-07-28, basic/patterns/mrtr."""
    try:
        return result_type(result) != "complete"
    except (msgspec.DecodeError, RecursionError):
        return False
