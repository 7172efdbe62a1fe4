"""What the gateway keeps of a legacy client whose server knows no sessions: log level, subscriptions, open questions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer
from mcp_gateway.transports.protocol.eras.translation import legacy_notification_params, modern_client_capabilities
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.change_notifications import (
    ACKNOWLEDGED,
    EVERY_LIST,
    LIST_CHANGES,
    RESOURCE_SUBSCRIPTIONS,
    RESOURCE_UPDATED,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.sealed.session import SessionFacts, SessionState

_SUBSCRIBING_S: Final = 5.0
"""Longest wait until a server honours a changed subscription."""
_DEFAULT_LOG_LEVEL: Final = "info"
"""A client that has set no level gets what the server chooses in the legacy era; ours chooses this."""

Listen = Callable[[Mapping[str, Any], EventHandler], Awaitable[UpstreamAnswer]]
"""Serves a subscription with this filter until it is cancelled."""


class ClientSession:
    """One legacy client at one modern server. calls: {request id: its task}, for cancellation.

    is_taken_up: it began elsewhere, or before a crash: what it has called, and what its stream has missed, nobody knows.
    """

    def __init__(
        self, key: str, initialize: bytes, revision: str, backend: str, facts: SessionFacts, *, is_taken_up: bool = False
    ) -> None:
        self.key = key
        self.revision = revision
        opening = _object(initialize)
        capabilities, info = opening.get("capabilities"), opening.get("clientInfo")
        self.capabilities = modern_client_capabilities(capabilities if isinstance(capabilities, dict) else {})
        self.client_info = info if isinstance(info, dict) else {"name": "unknown", "version": "0"}
        self.log_level = facts.log_level or _DEFAULT_LOG_LEVEL
        self.subscriptions = dict.fromkeys(facts.of_backend(backend))
        self.calls: dict[object, asyncio.Task[Any]] = {}
        self.cancelled: set[object] = set()
        self._questions: dict[object, asyncio.Future[Response]] = {}
        self._feeds: set[_Feed] = set()
        self._has_called_unheard = is_taken_up
        self._ids = itertools.count(1)
        self._incarnation = secrets.token_urlsafe(6)  # an answer to a question of before a crash is none to one since

    # ---- questions

    async def ask(self, method: str, params: bytes, on_event: EventHandler) -> Response:
        """Put a server's question to the client and wait for its response."""
        request_id = f"{self._incarnation}:{next(self._ids)}"
        answered: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._questions[request_id] = answered
        try:
            await on_event(Request(msgspec.json.encode(request_id), method, params), None)
            return await answered
        except asyncio.CancelledError:
            # Source: MCP 2025-11-25, basic/utilities/cancellation: whoever has asked may take the question back.
            withdrawn = msgspec.json.encode({"requestId": request_id, "reason": "the request has ended"})
            with contextlib.suppress(Exception):
                await asyncio.wait_for(on_event(Notification("notifications/cancelled", withdrawn), None), 1.0)
            raise
        finally:
            del self._questions[request_id]

    def hear_answer(self, response: Response) -> bool:
        """Take the client's response; False where nobody waits for it."""
        try:
            answered = self._questions.get(jsonrpc.id_value(response.id))
        except msgspec.DecodeError:
            return False
        if answered is None or answered.done():
            return False
        answered.set_result(response)
        return True

    def cancel(self, params: bytes) -> None:
        """The client has cancelled one of its requests; one that is unknown, or over, is nothing to complain about."""
        with contextlib.suppress(KeyError, msgspec.DecodeError):
            request_id = jsonrpc.id_value(bytes(jsonrpc.members(params)["requestId"]))
            call = self.calls[request_id]
            self.cancelled.add(request_id)
            call.cancel()

    # ---- subscriptions

    def wanted(self) -> dict[str, Any]:
        """The filter of this session's subscription: every change of a list, which a legacy client is told unasked."""
        resources = {RESOURCE_SUBSCRIPTIONS: list(self.subscriptions)} if self.subscriptions else {}
        return {**EVERY_LIST, **resources}

    def note_call(self) -> None:
        """A tool is about to run. What it changes before a stream is open is told by `changes_missed`.

        A legacy client opens its stream and makes its first calls at the same time, and either may be first at the server.
        """
        self._has_called_unheard |= not any(feed.honoured for feed in self._feeds)

    def changes_missed(self, honoured: Mapping[str, Any]) -> list[Notification]:
        """What a stream that opens now, with this filter, begins with: nobody heard what the calls before it have changed.

        A change says that something changed, not what, so to look again in vain costs a client little.
        """
        if not self._has_called_unheard:
            return []
        self._has_called_unheard = False
        missed = [Notification(change, b"") for change, member in LIST_CHANGES.items() if honoured.get(member)]
        uris = honoured.get(RESOURCE_SUBSCRIPTIONS)
        watched = [uri for uri in self.subscriptions if isinstance(uris, list) and uri in uris]
        return missed + [Notification(RESOURCE_UPDATED, msgspec.json.encode({"uri": uri})) for uri in watched]

    async def change_subscription(self, uri: str, *, is_wanted: bool) -> None:
        """Returns when the open streams have it, so that the client misses nothing that happens after its answer."""
        if is_wanted:
            self.subscriptions[uri] = None
        else:
            self.subscriptions.pop(uri, None)
        renewals = [feed.renew() for feed in self._feeds]
        if renewals:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*renewals), _SUBSCRIBING_S)

    async def stream(self, listen: Listen, on_event: EventHandler) -> UpstreamAnswer:
        """The session's own stream, until the server ends its subscription.

        Raises: UpstreamError.
        """
        feed = _Feed(self, listen, on_event)
        self._feeds.add(feed)
        try:
            return await feed.run()
        finally:
            self._feeds.discard(feed)
            feed.close()

    def close(self) -> None:
        for task in self.calls.values():
            task.cancel()
        for feed in self._feeds:
            feed.close()


class _Feed:
    """One open stream of a session: a subscription that is replaced, without a gap, when the session wants another one.

    honoured: what the server has said it tells; nothing before that.
    """

    def __init__(self, session: ClientSession, listen: Listen, on_event: EventHandler) -> None:
        self._session = session
        self._listen = listen
        self._on_event = on_event
        self.honoured: dict[str, Any] = {}
        self._current: asyncio.Task[UpstreamAnswer] | None = None
        self._renewing = asyncio.Lock()
        self._filter: dict[str, Any] = {}

    async def run(self) -> UpstreamAnswer:
        await self.renew()
        for missed in self._session.changes_missed(self.honoured) if self.honoured else ():
            await self._on_event(missed, None)
        while True:
            current = self._current
            assert current is not None
            await asyncio.wait({current})
            if current is self._current:
                return current.result()

    async def renew(self) -> None:
        """Open the subscription that the session wants now; the old one ends when the server has acknowledged it."""
        async with self._renewing:
            wanted = self._session.wanted()
            if wanted == self._filter:
                return
            acknowledged = asyncio.Event()

            async def hear(event: Message | None, event_id: str | None) -> None:
                if isinstance(event, Notification) and event.method == ACKNOWLEDGED:
                    honoured = _object(event.params).get("notifications")
                    self.honoured = honoured if isinstance(honoured, dict) else {}
                    acknowledged.set()
                elif isinstance(event, Notification):
                    await self._on_event(Notification(event.method, legacy_notification_params(event.params)), None)

            new = asyncio.ensure_future(self._listen(wanted, hear))
            waiting = asyncio.ensure_future(acknowledged.wait())
            try:
                await asyncio.wait({new, waiting}, timeout=_SUBSCRIBING_S, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                new.cancel()
                raise
            finally:
                waiting.cancel()
            old, self._current, self._filter = self._current, new, wanted
            if old is not None:
                old.cancel()

    def close(self) -> None:
        if self._current is not None:
            self._current.cancel()


class ClientSessions:
    """{session key: what is kept of it}; the least recently used one makes room, and lives on in its sealed id."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._began_ms = int(time.time() * 1000)
        self._sessions: OrderedDict[str, ClientSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def use(self, state: SessionState, backend: str) -> ClientSession:
        session = self._sessions.get(state.key)
        if session is None:
            is_taken_up = state.issued_ms < self._began_ms
            session = ClientSession(state.key, state.initialize, state.revision, backend, state.facts, is_taken_up=is_taken_up)
            self._sessions[state.key] = session
            if len(self._sessions) > self._limit:
                idle = next((key for key, each in self._sessions.items() if not each.calls), None)
                if idle is not None and idle != state.key:
                    del self._sessions[idle]
        self._sessions.move_to_end(state.key)
        return session

    def end(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        for key in list(self._sessions):
            self.end(key)


def _object(value: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}
