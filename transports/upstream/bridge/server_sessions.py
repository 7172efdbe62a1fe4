"""Sessions at a legacy server that the gateway keeps for modern clients, who know of none."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections import OrderedDict, deque
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import keys_of_owner
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, SharedTasks
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    UpstreamAnswer,
    UpstreamConversation,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, OPEN_ID
from mcp_gateway.transports.protocol.eras.translation import initialize_params
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import negotiated_with_server

_OPENING_S: Final = 30.0
_MESSAGE_S: Final = 10.0
"""Longest wait until a server has taken a notification or a response."""
_SAYING_LATER: Final = 1_000
"""Messages on their way to a server that does not take them; what comes on top is left unsaid."""
_LEVEL_S: Final = 2.0
"""Longest wait until a server has taken a log level."""
_GRACE_S: Final = 1.0
"""How long a server may take to hear that a call was cancelled, before the call's session is ended."""
_OPENING_AT_ONCE: Final = 2
"""Exclusive sessions of one client that are opened at a time. Behind pipes each is a process: of a burst of calls most are served
sooner by a session that a call before them gives back."""


@attrs.frozen
class SessionKey:
    """What a server can tell its clients apart by; a session is never used for two of them.

    capabilities: canonical JSON. is_exclusive: a session runs one call at a time. log_level: of all calls on a shared session;
    None where it is exclusive: each call has its own.
    """

    principal: str
    client_info: bytes
    capabilities: bytes
    log_level: str | None
    is_exclusive: bool


class ServerSession:
    """One session.

    initialized: the server's result of `initialize`.
    log_level:   what the server was told last; None before that.
    subscribed:  URIs of the resources whose changes the server was asked to tell it.
    use_count:   calls that run on it now.
    is_held:     somebody listens to its stream, calls or not.
    """

    def __init__(self, key: SessionKey, session_id: str | None, revision: str, initialized: dict[str, Any]) -> None:
        self.key = key
        self.hash_keys = keys_of_owner(key.principal)
        self.session_id = session_id
        self.revision = revision
        self.initialized = initialized
        info = initialized.get("serverInfo")
        self.server_info = msgspec.json.encode(info) if isinstance(info, dict) else b""
        self.log_level: str | None = None
        self.subscribed: set[str] = set()
        self.use_count = 0
        self.is_held = False
        self.used_s = 0.0
        self.is_over = False
        self._ids = itertools.count(1)

    def next_id(self) -> bytes:
        return b"%d" % next(self._ids)

    def offers(self, feature: str, flag: str = "") -> bool:
        """Whether the server has declared a capability, or a flag inside it."""
        capabilities = self.initialized.get("capabilities")
        declared = capabilities.get(feature) if isinstance(capabilities, dict) else None
        return isinstance(declared, dict) and (not flag or declared.get(flag) is True)


class ServerSessions:
    """Opens, lends and closes sessions; at most `limit` at once, of which those that idle for `idle_s` are closed."""

    def __init__(self, wire: UpstreamConversation, revision: str, *, limit: int = 1000, idle_s: float = 120.0) -> None:
        self._wire = wire
        self._revision = revision
        self._limit = limit
        self._idle_s = idle_s
        self._idle: OrderedDict[ServerSession, None] = OrderedDict()  # least recently used first
        self._shared: dict[SessionKey, ServerSession] = {}
        self._held: dict[SessionKey, ServerSession] = {}
        self._count = 0
        self._opening: SharedTasks[SessionKey, None] = SharedTasks()
        self._waiting: dict[SessionKey, deque[asyncio.Future[ServerSession]]] = {}  # for an exclusive one
        self._opening_counts: dict[SessionKey, int] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._abandoned: dict[ServerSession, asyncio.TimerHandle] = {}
        self._tasks = HeldTasks()

    def __len__(self) -> int:
        """Sessions that are open, lent or not."""
        return self._count

    async def lend(self, key: SessionKey, log_level: str | None = None) -> ServerSession:
        """A session for one more call; an exclusive one runs no other call meanwhile.

        log_level: what an exclusive session shall have; None leaves it as it is.

        Raises: UpstreamError; with pool_exhausted where every session that is allowed is in use.
        """
        if key.is_exclusive:
            held = self._held.get(key)
            found = held if held is not None and not held.use_count else None
            if found is None:
                found = next((each for each in reversed(self._idle) if each.key == key), None)
            session = self._used(found) if found is not None else await self._next_free(key)
            try:
                await self._set_level(session, log_level)
            except BaseException:
                self.give_back(session)
                raise
            return session
        while (known := self._shared.get(key)) is None:
            await self._opening.join(key, functools.partial(self._open_shared, key))
        return self._used(known)

    def share(self, session: ServerSession) -> None:
        """One more use of a session that is lent already, by the one who has it; it is given back once more as well."""
        session.use_count += 1

    def give_back(self, session: ServerSession) -> None:
        session.use_count -= 1
        session.used_s = time.monotonic()
        if session.use_count == 0 and not session.is_over:
            self._is_free(session)

    async def hold(self, key: SessionKey) -> ServerSession:
        """A session to listen to, one per key at a time; calls prefer it, because a server may tell their own session alone.

        Raises: UpstreamError.
        """
        session = await self.lend(key)
        session.is_held = True
        self._held[key] = session
        self.give_back(session)
        return session

    def let_go(self, session: ServerSession) -> None:
        session.is_held = False
        if self._held.get(session.key) is session:
            del self._held[session.key]
        session.use_count += 1
        self.give_back(session)

    def forget(self, session: ServerSession) -> None:
        """The server does not know it any more: nobody gets it again."""
        if session.is_over:
            return
        session.is_over = True
        self._count -= 1
        self._idle.pop(session, None)
        for sessions in (self._shared, self._held):
            if sessions.get(session.key) is session:
                del sessions[session.key]

    def end(self, session: ServerSession) -> None:
        """Nobody needs it any more: tell the server so."""
        if not session.is_over:
            self.forget(session)
            self._say_farewell(session)

    def abandon(self, session: ServerSession) -> None:
        """A call on it was cancelled, and whether the server obeys cannot be known: what it says would be taken for another
        call's. Nobody gets the session again; it is ended when the server has had time to take the cancellation.
        """
        if not session.is_over:
            self.forget(session)
            self._abandoned[session] = asyncio.get_running_loop().call_later(_GRACE_S, self._say_farewell, session)

    async def say(self, session: ServerSession, message: Notification | Response) -> None:
        """Send what needs no answer.

        Raises: UpstreamError.
        """
        await self._wire.exchange(self._request(session, RequestKind.MESSAGE, message, _MESSAGE_S), ignore_events)

    def say_later(self, session: ServerSession, message: Notification | Response) -> None:
        """The same without waiting; a server that cannot be reached has no use for it."""
        if len(self._tasks) < _SAYING_LATER:
            self._tasks.start(self._quietly(self._request(session, RequestKind.MESSAGE, message, _MESSAGE_S)))

    async def ask(self, session: ServerSession, method: str, params: bytes, timeout_s: float = _OPENING_S) -> UpstreamAnswer:
        """A request of the gateway's own.

        Raises: UpstreamError.
        """
        request = self._request(session, RequestKind.REQUEST, Request(session.next_id(), method, params), timeout_s)
        return await self._wire.exchange(request, ignore_events)

    def ask_later(self, session: ServerSession, method: str, params: bytes) -> None:
        """A request whose answer says nothing that anybody needs."""
        message = Request(session.next_id(), method, params)
        self._tasks.start(self._quietly(self._request(session, RequestKind.REQUEST, message, _MESSAGE_S)))

    async def subscribe(self, session: ServerSession, uri: str) -> bool:
        """Have the server tell the session of changes of a resource; whether it does.

        Raises: UpstreamError.
        """
        if uri not in session.subscribed:
            answer = await self.ask(session, "resources/subscribe", msgspec.json.encode({"uri": uri}))
            if answer.response is None or not answer.response.result:
                return False
            session.subscribed.add(uri)
        return True

    def unsubscribe_later(self, session: ServerSession, uri: str) -> None:
        session.subscribed.discard(uri)
        self.ask_later(session, "resources/unsubscribe", msgspec.json.encode({"uri": uri}))

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        self._opening.cancel()
        for turn in [turn for waiting in self._waiting.values() for turn in waiting]:
            turn.cancel()
        for session in [*self._idle, *self._shared.values(), *self._held.values()]:
            self.end(session)
        for session in list(self._abandoned):
            self._say_farewell(session)
        await self._tasks.wait(1.0)

    # ---- parts

    def _request(self, session: ServerSession, kind: RequestKind, message: Message, timeout_s: float) -> UpstreamRequest:
        return UpstreamRequest(
            kind=kind,
            message=message,
            revision=session.revision,
            session_id=session.session_id,
            timeout_s=timeout_s,
            hash_keys=session.hash_keys,
        )

    def _used(self, session: ServerSession) -> ServerSession:
        self._idle.pop(session, None)
        session.use_count += 1
        return session

    # ---- exclusive sessions

    async def _next_free(self, key: SessionKey) -> ServerSession:
        """The session that a call gives back, or that is opened meanwhile, whichever comes first; first come, first served.

        It counts as used from the moment at which it is handed over.
        """
        turn: asyncio.Future[ServerSession] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        self._open_for(key)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(turn.result())
            raise

    def _open_for(self, key: SessionKey) -> None:
        """Open one more for those who wait, unless enough are being opened."""
        count = self._opening_counts.get(key, 0)
        if count < min(_OPENING_AT_ONCE, len(self._waiting.get(key, ()))):
            self._opening_counts[key] = count + 1
            self._tasks.start(self._open_next(key))

    async def _open_next(self, key: SessionKey) -> None:
        try:
            self._is_free(await self._open(key))
        except Exception as error:
            turn = self._next_turn(key)
            if turn is not None:
                turn.set_exception(error)
        finally:
            self._opening_counts[key] -= 1
            if not self._opening_counts[key]:
                del self._opening_counts[key]
        self._open_for(key)

    def _is_free(self, session: ServerSession) -> None:
        """Nothing runs on it: whoever waits for one gets it, or it idles."""
        turn = self._next_turn(session.key)
        if turn is not None:
            turn.set_result(self._used(session))
        elif not session.is_held:
            self._idle[session] = None
            self._idle.move_to_end(session)
            self._sweep_later()

    def _next_turn(self, key: SessionKey) -> asyncio.Future[ServerSession] | None:
        waiting = self._waiting.get(key)
        while waiting:
            turn = waiting.popleft()
            if not waiting:
                del self._waiting[key]
            if not turn.done():
                return turn
        return None

    # ---- opening

    async def _open_shared(self, key: SessionKey) -> None:
        session = self._shared[key] = await self._open(key)
        session.used_s = time.monotonic()
        self._is_free(session)  # those who have waited take it in a moment; but they may all have gone

    async def _open(self, key: SessionKey) -> ServerSession:
        """Source: MCP 2025-11-25, basic/lifecycle, "Initialization"."""
        if self._count >= self._limit and self._idle:
            self.end(next(iter(self._idle)))
        if self._count >= self._limit:
            text = f"{self._limit} sessions are open at this server already"
            raise UpstreamError(Fate.TURNED_AWAY, text, reason="pool_exhausted")
        self._count += 1
        try:
            params = initialize_params(key.client_info, msgspec.json.decode(key.capabilities), self._revision)
            opening = UpstreamRequest(
                kind=RequestKind.REQUEST,
                message=Request(OPEN_ID, "initialize", params),
                revision=self._revision,
                timeout_s=_OPENING_S,
                hash_keys=keys_of_owner(key.principal),
            )
            session = _opened(key, await self._wire.exchange(opening, ignore_events))
            await self.say(session, INITIALIZED)
            await self._set_level(session, key.log_level)
        except BaseException:
            self._count -= 1
            raise
        return session

    async def _set_level(self, session: ServerSession, log_level: str | None) -> None:
        """Once, and not for long: calls are served without log messages too. What is wrong with a session, they will find out."""
        if log_level is not None and log_level != session.log_level and session.offers("logging"):
            session.log_level = log_level
            with contextlib.suppress(UpstreamError):
                await self.ask(session, "logging/setLevel", msgspec.json.encode({"level": log_level}), _LEVEL_S)

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        self._sweep = None
        oldest_s = time.monotonic() - self._idle_s
        for session in list(self._idle):
            if session.used_s <= oldest_s:
                self.end(session)
        if self._idle:
            self._sweep_later()

    def _say_farewell(self, session: ServerSession) -> None:
        if (timer := self._abandoned.pop(session, None)) is not None:
            timer.cancel()
        request = UpstreamRequest(
            kind=RequestKind.TERMINATE,
            revision=session.revision,
            session_id=session.session_id,
            timeout_s=_MESSAGE_S,
            hash_keys=session.hash_keys,
        )
        self._tasks.start(self._quietly(request))

    async def _quietly(self, request: UpstreamRequest) -> None:
        with contextlib.suppress(UpstreamError):
            await self._wire.exchange(request, ignore_events)


def _opened(key: SessionKey, answer: UpstreamAnswer) -> ServerSession:
    response = answer.response
    if response is None or not response.result:
        error = b"" if response is None else response.error
        text = "the server refused to open a session"
        raise UpstreamError(Fate.UNSUPPORTED, text, reason="upstream_failed", error=error)
    try:
        initialized: dict[str, Any] = msgspec.json.decode(response.result, type=dict[str, Any])
        revision = answer.revision or negotiated_with_server(initialized["protocolVersion"])
    except (KeyError, msgspec.DecodeError, RecursionError) as error:
        raise UpstreamError(Fate.BROKEN, f"the server's answer to initialize cannot be read: {error!r}") from None
    except ValueError as error:
        raise UpstreamError(Fate.REFUSED, str(error)) from None
    return ServerSession(key, answer.session_id, revision, initialized)
