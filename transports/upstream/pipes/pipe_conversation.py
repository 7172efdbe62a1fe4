"""The conversation with a server behind pipes: each exchange goes over the pipe of its session, or the one of its revision.

On a pipe the connection is the session (MCP 2025-11-25, basic/lifecycle). Sessions get ids of our own, which lead back to their
pipe; an unknown one has lost it, and is opened again by whoever used it. Two kinds of pipe:
* private: of one session whose client can be asked. Another client's questions and log messages never come this way;
* shared: of all sessions of one revision whose clients declare nothing that they could be asked for, or of all requests of the
  stateless revisions. A session that begins to keep state at the server (log level, subscriptions) moves to a private one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
)
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, PROBE_ID, discover, initialize, ping
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.error_codes import METHOD_NOT_FOUND, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST_LEGACY, is_modern

from .message_pipe import MessagePipe
from .open_pipe import OpenPipe
from .pipe_pool import PipePool
from .pipe_sessions import PipeSession, PipeSessions, read_initialize
from .pipe_starts import PipeStarts
from .shared_pipes import SharedPipes

IDLE_S: Final = 300.0
"""Without a call and without a listener for so long, a pipe is closed; its session is opened again when it is used."""

_MISSED_PINGS: Final = 3
_KEEPS_STATE: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})


class PipeConversation:
    """The wire to one replica.

    open_pipe:       makes a connection that is not open yet.
    backend:         as it is called in metrics; name: of the replica, in the log.
    max_pipes:       of them at most at any time.
    era:             of the server, shared with whoever else speaks to it.
    longest_call_s:  a server that has said nothing at all for so long does not live any more.
    start_timeout_s: how long a new connection's server may be silent and count as starting; 0 where a connection shows it runs.
    private_idle_s:  the same as idle_s for one of a session's own that keeps nothing for it; whichever is over first.
    trouble:         what it is called that one connection after the other fails.
    """

    def __init__(
        self,
        name: str,
        open_pipe: Callable[[], MessagePipe],
        *,
        backend: str,
        max_pipes: int,
        era: ServerEra,
        longest_call_s: float,
        start_timeout_s: float = 0.0,
        idle_s: float = IDLE_S,
        private_idle_s: float = IDLE_S,
        trouble: str = "no connection",
    ) -> None:
        self._longest_call_s = longest_call_s
        self._era = era
        self._pipes = PipePool(
            name,
            open_pipe,
            backend=backend,
            max_pipes=max_pipes,
            idle_s=idle_s,
            private_idle_s=private_idle_s,
            on_gone=self._on_gone,
            trouble=trouble,
        )
        self._starts = PipeStarts(self._pipes, era, start_timeout_s=start_timeout_s)
        self._shared = SharedPipes(self._pipes, self._starts, era)
        self._sessions = PipeSessions(self._pipes, self._starts)

    def _on_gone(self, pipe: OpenPipe) -> None:
        self._shared.forget(pipe)
        self._sessions.forget(pipe)

    # ---- exchanges

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if message is None:
            if request.kind is RequestKind.STREAM:
                return await self._listen(request, on_event)
            self._sessions.end(request.session_id)
            return UpstreamAnswer(200, None)
        if is_modern(request.revision):
            return await self._modern_exchange(request, message, on_event)
        if isinstance(message, Request) and message.method == "initialize":
            return await self._initialize(message, on_event, request.timeout_s)
        session = self._sessions.find(request.session_id)
        if not isinstance(message, Request):
            await self._tell(session, message, request.timeout_s)
            return UpstreamAnswer(202, None)
        if message.method in _KEEPS_STATE and not session.pipe.is_private:
            await self._sessions.move(session, request.timeout_s)
        response = await session.pipe.request(session.session_id, message, on_event, request.timeout_s)
        return UpstreamAnswer(200, response)

    async def _initialize(self, message: Request, on_event: EventHandler, timeout_s: float | None) -> UpstreamAnswer:
        revision, is_private = read_initialize(message.params)
        try:
            async with asyncio.timeout(timeout_s):
                if is_private:
                    pipe = await self._starts.private_pipe(message, on_event)
                else:
                    pipe = await self._shared.legacy_pipe(revision, message)
        except TimeoutError:
            raise self._starts.not_in_time(Fate.TIMED_OUT, "the server did not open a session in time") from None
        answer = pipe.answer
        assert answer is not None
        response = answer.to(message.id)
        if not answer.result:
            return UpstreamAnswer(200, response)
        return UpstreamAnswer(200, response, self._sessions.begin(pipe, message.params))

    async def _tell(self, session: PipeSession, message: Notification | Response, timeout_s: float | None) -> None:
        pipe = session.pipe
        if isinstance(message, Notification) and message.method == INITIALIZED.method:
            if pipe.is_initialized:
                return
            pipe.is_initialized = True
        if session.moved_from is not None and isinstance(message, Notification) and message.method == "notifications/cancelled":
            with contextlib.suppress(UpstreamError):  # it has ended, and its calls with it
                await session.moved_from.tell(session.session_id, message, timeout_s)
        await pipe.tell(session.session_id, message, timeout_s)

    async def _listen(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        session = self._sessions.find(request.session_id)
        while True:
            pipe = session.pipe
            await pipe.stream(session.session_id, on_event, request.on_open)
            if session.pipe is pipe:
                return UpstreamAnswer(200, None)

    async def _modern_exchange(self, request: UpstreamRequest, message: Message, on_event: EventHandler) -> UpstreamAnswer:
        for is_last in (False, True):
            pipe = await self._shared.modern_pipe(request.timeout_s)
            try:
                if not isinstance(message, Request):
                    await pipe.tell("", message, request.timeout_s)
                    return UpstreamAnswer(202, None)
                is_stream = request.kind is RequestKind.STREAM
                response = await pipe.request(
                    "", message, on_event, request.timeout_s, is_stream=is_stream, on_open=request.on_open if is_stream else None
                )
                return UpstreamAnswer(_status(response), response)
            except UpstreamError as error:
                if error.fate is not Fate.SESSION_LOST:
                    raise
                if is_last:
                    raise UpstreamError(Fate.UNREACHABLE, error.failure.text) from None
        raise AssertionError("the last attempt has an outcome")

    # ---- probes

    async def probe(self, timeout_s: float) -> None:
        """Learn the server's era, then ask one connection for a sign of life; opens one where there is none.

        Where each is one session's own and busy, their callers' deadlines judge the server.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        ready_s = 0.8 * timeout_s  # whoever asks is told why, before the time that it has itself is over
        try:
            if self._era.speaks_modern is None:
                await self._shared.modern_pipe(ready_s)
            pipe = await self._pipe_to_probe(ready_s)
        except UpstreamError as error:
            if error.failure.reason == "pool_exhausted":
                return
            if error.fate is not Fate.UNSUPPORTED:
                raise self._pipes.pause() or error from None
            pipe = await self._pipe_to_probe(ready_s)
        if pipe is None:
            return
        request = discover(PROBE_ID) if pipe.is_modern else ping(PROBE_ID)
        left_s = max(0.1, 0.95 * (deadline_s - asyncio.get_running_loop().time()))
        try:
            await pipe.request("", request, ignore_events, left_s, is_use=not pipe.is_private)
            pipe.pings_missed = 0
        except UpstreamError as error:
            if error.fate is Fate.SESSION_LOST:
                raise UpstreamError(Fate.UNREACHABLE, error.failure.text) from None
            pipe.pings_missed += error.failure.reason == "upstream_timeout"
            # A server may be busy with one call and answer nothing else meanwhile, but not for longer than a call may take.
            silent_s = asyncio.get_running_loop().time() - pipe.heard_s
            if pipe.pings_missed >= _MISSED_PINGS and (not pipe.is_busy or silent_s > self._longest_call_s):
                self._pipes.close_soon(pipe, "the server does not answer")
            raise

    async def _pipe_to_probe(self, timeout_s: float) -> OpenPipe | None:
        shared = [pipe for pipe in self._pipes if not pipe.is_private and pipe.is_open and (pipe.is_modern or pipe.answer)]
        if shared:
            return max(shared, key=lambda pipe: pipe.is_modern)
        if self._pipes:
            free = [pipe for pipe in self._pipes if pipe.answer is not None and not pipe.is_busy]
            return max(free, key=lambda pipe: pipe.used_s, default=None)
        if self._era.speaks_modern:
            return await self._shared.modern_pipe(timeout_s)
        return await self._shared.legacy_pipe(NEWEST_LEGACY, initialize(PROBE_ID), timeout_s)

    async def close(self) -> None:
        self._starts.close()
        await self._pipes.close()


def _status(response: Response | None) -> int:
    """The HTTP status with which a stateless server would give this response."""
    if response is None or not response.error:
        return 200
    return 404 if error_code(response.error) == METHOD_NOT_FOUND else 400
