"""`subscriptions/listen` at a legacy server: a session's own stream and `resources/subscribe`, for all who listen with it.

Source: MCP 2026-07-28, basic/patterns/subscriptions; MCP 2025-11-25, basic/transports, "Listening for Messages from the Server";
server/resources, "Subscriptions".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamConversation, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.questions import refused_question
from mcp_gateway.transports.protocol.eras.translation import ModernRequest, legacy_notification_params
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.change_notifications import (
    ACKNOWLEDGED,
    LIST_CHANGES,
    RESOURCE_SUBSCRIPTIONS,
    RESOURCE_UPDATED,
    feature_of,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_SUBSCRIPTION_ID

from .server_sessions import ServerSession, ServerSessions, SessionKey

_RETRY_S: Final = 1.0
_OPENING_S: Final = 5.0
"""Longest wait for a server's stream to open before the client is told what it may expect."""
_MAX_RESOURCES: Final = 1000


class Listener:
    """One open subscription. What it has not taken yet is kept once: changes say that something changed, not what."""

    def __init__(self, request_id: bytes, modern: ModernRequest) -> None:
        self.wanted, self.uris = _wanted(modern)
        self.honoured: dict[str, Any] = {}
        self._meta = {META_SUBSCRIPTION_ID: Raw(request_id)}
        self._waiting: dict[tuple[str, bytes], Notification] = {}
        self._news = asyncio.Event()

    def hear(self, change: Notification) -> None:
        """A notification of the server; kept where this client has asked for it."""
        member = RESOURCE_SUBSCRIPTIONS if change.method == RESOURCE_UPDATED else LIST_CHANGES.get(change.method)
        if member in self.honoured and (change.method != RESOURCE_UPDATED or self._concerns(change.params)):
            self._waiting[change.method, change.params] = change
            self._news.set()

    async def write(self, on_event: EventHandler) -> None:
        """Acknowledge, then pass on what comes, for ever."""
        params = msgspec.json.encode({"_meta": self._meta, "notifications": self.honoured})
        await on_event(Notification(ACKNOWLEDGED, params), None)
        while True:
            while self._waiting:
                change = self._waiting.pop(next(iter(self._waiting)))
                await on_event(self._tagged(change), None)
            self._news.clear()
            await self._news.wait()

    def _concerns(self, params: bytes) -> bool:
        """An update of a resource, or of a part of it. Source: MCP 2025-11-25, schema, ResourceUpdatedNotification."""
        try:
            uri = msgspec.json.decode(jsonrpc.members(params)["uri"], type=str)
        except (KeyError, msgspec.DecodeError):
            return False
        return any(uri.startswith(each) for each in self.honoured[RESOURCE_SUBSCRIPTIONS])

    def _tagged(self, change: Notification) -> Notification:
        values = jsonrpc.members(change.params)
        known = jsonrpc.members(bytes(values.get("_meta", Raw(b"{}"))))
        values["_meta"] = Raw(msgspec.json.encode({**known, **self._meta}))
        return Notification(change.method, msgspec.json.encode(values))


class Relayed:
    """What another cell hears for a listener of this one. is_ready: it listens by now, or cannot."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self.is_ready = asyncio.Event()

    async def hear(self, event: Message | None, event_id: str | None) -> None:
        if not isinstance(event, Notification):
            return
        if event.method == ACKNOWLEDGED:
            self.is_ready.set()
        else:
            self._listener.hear(Notification(event.method, legacy_notification_params(event.params)))


class SubscriptionHub:
    """Those who listen with one kind of session. on_empty: called when the last one has gone.

    A session that the server has lost is opened again, its resources subscribed again, and everybody told to look again.
    """

    def __init__(
        self,
        wire: UpstreamConversation,
        sessions: ServerSessions,
        key: SessionKey,
        on_empty: Callable[[], None],
    ) -> None:
        self._wire = wire
        self._sessions = sessions
        self._key = key
        self._on_empty = on_empty
        self._listeners: set[Listener] = set()
        self._subscribed: Counter[str] = Counter()
        self._session: ServerSession | None = None
        self._streaming: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._may_hurry = True  # to open a lost session again
        self._changing = asyncio.Lock()
        self._last_event_id: str | None = None

    def tell(self, change: Notification) -> None:
        for listener in self._listeners:
            listener.hear(change)

    async def serve(self, listener: Listener, on_event: EventHandler, relays: Sequence[Relayed] = ()) -> None:
        """Serve one subscription until it is cancelled; it begins when those who relay to it are ready, within a bound.

        Raises: UpstreamError where the server cannot be reached at its beginning.
        """
        self._listeners.add(listener)
        try:
            session = await self._open()
            listener.honoured.update(_honoured_changes(listener.wanted, session))
            for uri in listener.uris if session.offers("resources", "subscribe") else ():
                if await self._subscribe(uri):
                    listener.honoured.setdefault(RESOURCE_SUBSCRIPTIONS, []).append(uri)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_OPENING_S):
                    for relayed in relays:
                        await relayed.is_ready.wait()
            await listener.write(on_event)
        finally:
            self._listeners.discard(listener)
            self._unsubscribe(listener.honoured.get(RESOURCE_SUBSCRIPTIONS, ()))
            if not self._listeners:
                self.close()

    async def adopt(self, session: ServerSession) -> None:
        """Have another session of the same client tell changes of the resources too, before a call runs on it.

        Where each session is a process, what a call changes in memory is known to the process of its own session alone.
        """
        if not self._key.is_exclusive or session is self._session:
            return
        watched = set(self._subscribed)
        for uri in session.subscribed - watched:
            self._sessions.unsubscribe_later(session, uri)
        with contextlib.suppress(UpstreamError):  # what is wrong with the session, the call will find out
            for uri in watched - session.subscribed if session.offers("resources", "subscribe") else ():
                await self._sessions.subscribe(session, uri)

    def follow(self, session: ServerSession) -> None:
        """A session is given up: where it was the one that listens, go on with another."""
        if session is self._session:
            self._start_streaming()

    def close(self) -> None:
        self._on_empty()
        if self._streaming is not None:
            self._streaming.cancel()
        if self._session is not None:
            self._sessions.let_go(self._session)
            self._session = None

    # ---- the session and its stream

    async def _open(self) -> ServerSession:
        """The session with its stream open, or known to have none."""
        async with self._changing:
            session = await self._current()
            streaming = self._streaming
        assert streaming is not None
        opening = asyncio.ensure_future(self._opened.wait())
        try:
            await asyncio.wait({streaming, opening}, timeout=_OPENING_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opening.cancel()
        return session

    async def _current(self) -> ServerSession:
        """The session, opened again where it is over; under the lock.

        Raises: UpstreamError.
        """
        if self._session is None:
            self._session = await self._sessions.hold(self._key)
            self._start_streaming()
        elif self._session.is_over:
            await self._renew()
            if asyncio.current_task() is not self._streaming:
                self._start_streaming()
        return self._session

    def _start_streaming(self) -> None:
        if self._streaming is not None:
            self._streaming.cancel()
        self._streaming = asyncio.get_running_loop().create_task(self._stream())

    async def _stream(self) -> None:
        """Keep the session's stream open: a server may end it at any time and expects to be asked again."""
        while True:
            session: ServerSession | None = None
            try:
                async with self._changing:
                    session = await self._current()
                request = UpstreamRequest(
                    kind=RequestKind.STREAM,
                    revision=session.revision,
                    session_id=session.session_id,
                    last_event_id=self._last_event_id,
                    on_open=self._is_open,
                    hash_keys=session.hash_keys,
                )
                await self._wire.exchange(request, self._hear)
            except UpstreamError as error:
                if error.failure.reason == "unknown_method":
                    return  # the server has no such stream; changes may still come during calls
                if error.fate is Fate.SESSION_LOST and session is not None:
                    self._sessions.forget(session)
                    if self._may_hurry:
                        # Not again until one was open: a server may open sessions without end and know none of them.
                        self._may_hurry = False
                        continue
            await asyncio.sleep(_RETRY_S)

    def _is_open(self) -> None:
        self._may_hurry = True
        self._opened.set()

    async def _renew(self) -> None:
        """A new session in place of the lost one. Nobody heard what changed meanwhile: everybody looks again at everything."""
        session = await self._sessions.hold(self._key)
        try:
            for uri in list(self._subscribed):
                await self._sessions.subscribe(session, uri)
        except BaseException as error:
            if isinstance(error, UpstreamError) and error.fate is Fate.SESSION_LOST:
                self._sessions.forget(session)
            self._sessions.let_go(session)  # calls may run on it; the next attempt goes on with what is not subscribed yet
            raise
        self._session, self._last_event_id = session, None
        for method in LIST_CHANGES:
            self.tell(Notification(method, b""))
        for uri in list(self._subscribed):
            self.tell(Notification(RESOURCE_UPDATED, msgspec.json.encode({"uri": uri})))

    async def _hear(self, event: Message | None, event_id: str | None) -> None:
        if event_id is not None:
            self._last_event_id = event_id
        if isinstance(event, Request) and self._session is not None:
            answer = Response(event.id, b"{}", b"") if event.method == "ping" else refused_question(event, {})
            self._sessions.say_later(self._session, answer)
        elif isinstance(event, Notification):
            self.tell(event)

    # ---- resources

    async def _subscribe(self, uri: str) -> bool:
        async with self._changing:
            if not await self._is_subscribed(uri):
                return False
            self._subscribed[uri] += 1
            return True

    async def _is_subscribed(self, uri: str) -> bool:
        for is_last in (False, True):
            session = await self._current()
            try:
                return await self._sessions.subscribe(session, uri)
            except UpstreamError as error:
                if is_last or error.fate is not Fate.SESSION_LOST:
                    raise
                self._sessions.forget(session)  # nobody else may find it out
        raise AssertionError("the last attempt has an outcome")

    def _unsubscribe(self, uris: Iterable[str]) -> None:
        for uri in uris:
            self._subscribed[uri] -= 1
            if self._subscribed[uri] <= 0:
                del self._subscribed[uri]
                if self._session is not None:
                    self._sessions.unsubscribe_later(self._session, uri)


def _honoured_changes(wanted: set[str], session: ServerSession) -> dict[str, Any]:
    offered = {member for change, member in LIST_CHANGES.items() if session.offers(feature_of(change), "listChanged")}
    return dict.fromkeys(sorted(wanted & offered), True)


def _wanted(modern: ModernRequest) -> tuple[set[str], list[str]]:
    try:
        asked = msgspec.json.decode(modern.params.get("notifications", Raw(b"{}")), type=dict[str, Any])
        uris = msgspec.convert(asked.pop(RESOURCE_SUBSCRIPTIONS, None) or [], list[str])
    except msgspec.ValidationError as error:
        raise UpstreamError(Fate.ENDED, f"notifications cannot be read: {error}", reason="invalid_params") from None
    if len(uris) > _MAX_RESOURCES:
        text = f"one subscription may name {_MAX_RESOURCES} resources"
        raise UpstreamError(Fate.ENDED, text, reason="invalid_params")
    return {name for name, value in asked.items() if value is True}, list(dict.fromkeys(uris))
