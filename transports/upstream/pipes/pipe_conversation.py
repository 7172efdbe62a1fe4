"""The conversation with a server behind pipes: which session speaks on which of them, and when one is opened or closed.

On a pipe the connection is the session (MCP 2025-11-25, basic/lifecycle). Sessions get ids of our own, which lead back to their
pipe; an unknown one has lost it, and is opened again by whoever used it. Two kinds of pipe:
* private: of one session whose client can be asked. Another client's questions and log messages never come this way;
* shared: of all sessions of one revision whose clients declare nothing that they could be asked for, or of all requests of the
  stateless revisions. A session that begins to keep state at the server (log level, subscriptions) moves to a private one.

A server may take long to say its first word. Until then it is starting: its pipe is kept, whoever gives up waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, SharedTasks, retrieve
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import (
    EventHandler,
    UpstreamAnswer,
    UpstreamError,
    UpstreamRequest,
    ignore_events,
    only_legacy,
)
from mcp_gateway.transports.protocol.eras.own_requests import INITIALIZED, MOVE_ID, PROBE_ID, discover, initialize, ping
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.error_codes import METHOD_NOT_FOUND, error_code
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import (
    NEWEST,
    NEWEST_LEGACY,
    is_modern,
    negotiated_legacy,
)

from .message_pipe import MessagePipe
from .open_pipe import OpenPipe, session_lost
from .pipe_pool import OPEN_TIMEOUT_S, PipePool

IDLE_S: Final = 300.0
"""Without a call and without a listener for so long, a pipe is closed; its session is opened again when it is used."""

SESSIONS_REMEMBERED: Final = 10_000
_LONGEST_INITIALIZE_BYTES: Final = 8_192  # of a session that shares its pipe; a client with more to say gets one of its own
DISCOVER_TIMEOUT_S: Final = 10.0
UNCLAIMED_S: Final = 60.0
"""So long a pipe is kept for a client that has given up waiting while its server started; clients try again after seconds."""

_MISSED_PINGS: Final = 3
_NO_ERA: Final = "the server takes neither a modern request nor a handshake"
_MODERN: Final = NEWEST  # names the shared pipe of all stateless requests, as a legacy revision names that of its sessions
# Source: MCP 2025-11-25, basic/lifecycle, "Capability Negotiation": what lets a server ask its client.
_CAN_BE_ASKED: Final = frozenset({"sampling", "elicitation", "roots"})
_KEEPS_STATE: Final = frozenset({"logging/setLevel", "resources/subscribe", "resources/unsubscribe"})


@attrs.define
class _Session:
    """initialize: the client's own params, to move it to another pipe. has_ended: by its client's wish.

    moved_from: where its earlier calls may still run.
    """

    session_id: str
    initialize: bytes = attrs.field(repr=False)
    pipe: OpenPipe
    has_ended: bool = False
    moved_from: OpenPipe | None = None


@attrs.define
class _PrivateStart:
    """A private pipe whose handshake is under way, or has ended without its client.

    params:   of the `initialize`. The server knows no more of the client, so whoever sends the same may take it over.
    on_event: of the client that waits for it; None where nobody does.
    timer:    ends what nobody waits for.
    """

    params: bytes = attrs.field(repr=False)
    on_event: EventHandler | None = None
    pipe: OpenPipe | None = None
    task: asyncio.Task[OpenPipe] | None = None
    timer: asyncio.TimerHandle | None = None


class PipeConversation:
    """The wire to one replica.

    open_pipe:       makes a connection that is not open yet.
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
        max_pipes: int,
        era: ServerEra,
        longest_call_s: float,
        start_timeout_s: float = 0.0,
        idle_s: float = IDLE_S,
        private_idle_s: float = IDLE_S,
        trouble: str = "no connection",
    ) -> None:
        self._longest_call_s = longest_call_s
        self._start_timeout_s = start_timeout_s
        self._has_missed_start = False  # the last one: until it has spoken again, its silence is a failure
        self._era = era
        self._pipes = PipePool(
            name,
            open_pipe,
            max_pipes=max_pipes,
            idle_s=idle_s,
            private_idle_s=private_idle_s,
            on_gone=self._on_gone,
            trouble=trouble,
        )
        self._shared: dict[str, OpenPipe] = {}  # {revision: pipe}
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._under_way: SharedTasks[str, Any] = SharedTasks()
        self._starts: list[_PrivateStart] = []  # oldest first
        self._questions = HeldTasks()

    # ---- exchanges

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if message is None:
            if request.kind is RequestKind.STREAM:
                return await self._listen(request, on_event)
            self._terminate(request.session_id)
            return UpstreamAnswer(200, None)
        if is_modern(request.revision):
            return await self._modern_exchange(request, message, on_event)
        if isinstance(message, Request) and message.method == "initialize":
            return await self._initialize(message, on_event, request.timeout_s)
        session = self._session(request.session_id)
        if not isinstance(message, Request):
            await self._tell(session, message, request.timeout_s)
            return UpstreamAnswer(202, None)
        if message.method in _KEEPS_STATE and not session.pipe.is_private:
            await self._once(f"session {session.session_id}", lambda: self._move(session), request.timeout_s)
        response = await session.pipe.request(session.session_id, message, on_event, request.timeout_s)
        return UpstreamAnswer(200, response)

    async def _tell(self, session: _Session, message: Notification | Response, timeout_s: float | None) -> None:
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
        session = self._session(request.session_id)
        while True:
            pipe = session.pipe
            await pipe.stream(session.session_id, on_event, request.on_open)
            if session.pipe is pipe:
                return UpstreamAnswer(200, None)

    async def _modern_exchange(self, request: UpstreamRequest, message: Message, on_event: EventHandler) -> UpstreamAnswer:
        for is_last in (False, True):
            pipe = await self._modern_pipe(request.timeout_s)
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

    # ---- sessions

    def _session(self, session_id: str | None) -> _Session:
        session = self._sessions.get(session_id or "")
        if session is None or not session.pipe.is_open:
            raise session_lost("the connection of the session is no longer open")
        self._sessions.move_to_end(session.session_id)
        return session

    def _begin_session(self, pipe: OpenPipe, initialize: bytes) -> str:
        session_id = secrets.token_urlsafe(12)
        self._sessions[session_id] = _Session(session_id, b"" if pipe.is_private else initialize, pipe)
        pipe.sessions.add(session_id)
        if len(self._sessions) > SESSIONS_REMEMBERED:
            self._terminate(next(iter(self._sessions)))
        return session_id

    def _terminate(self, session_id: str | None) -> None:
        session = self._sessions.pop(session_id or "", None)
        if session is None:
            return
        session.has_ended = True
        session.pipe.sessions.discard(session.session_id)
        if session.pipe.is_private:
            self._pipes.close_soon(session.pipe, "the client has ended its session")

    async def _initialize(self, message: Request, on_event: EventHandler, timeout_s: float | None) -> UpstreamAnswer:
        revision, is_private = _read_initialize(message.params)
        try:
            async with asyncio.timeout(timeout_s):
                pipe = await (self._private_pipe(message, on_event) if is_private else self._shared_pipe(revision, message))
        except TimeoutError:
            raise self._not_in_time(Fate.TIMED_OUT, "the server did not open a session in time") from None
        answer = pipe.answer
        assert answer is not None
        response = Response(message.id, answer.result, answer.error)
        if not answer.result:
            return UpstreamAnswer(200, response)
        return UpstreamAnswer(200, response, self._begin_session(pipe, message.params))

    async def _private_pipe(self, message: Request, on_event: EventHandler) -> OpenPipe:
        """A pipe with a session of its own. One that is still starting outlives its client's patience, for the next try.

        Raises: UpstreamError.
        """
        start = next((each for each in self._starts if _is_for(each, message.params)), None)
        if start is None:
            start = _PrivateStart(message.params)
            start.task = asyncio.get_running_loop().create_task(self._start_private(start, message))
            self._starts.append(start)
        if start.timer is not None:
            start.timer.cancel()
        start.on_event = on_event
        assert start.task is not None
        try:
            pipe = await asyncio.shield(start.task)
        except asyncio.CancelledError:
            start.on_event = None
            if start.pipe is not None and self._is_starting(start.pipe):
                start.timer = asyncio.get_running_loop().call_later(UNCLAIMED_S, self._end_start, start)
                start.task.add_done_callback(retrieve)
            else:
                self._end_start(start)
            raise
        except UpstreamError:
            self._starts.remove(start)
            raise
        self._starts.remove(start)
        return pipe

    async def _start_private(self, start: _PrivateStart, message: Request) -> OpenPipe:
        async def on_event(event: Message | None, event_id: str | None) -> None:
            if start.on_event is not None:
                await start.on_event(event, event_id)

        start.pipe = await self._open_pipe(is_private=True, is_modern=False)
        await self._handshake(start.pipe, message, on_event)
        return start.pipe

    def _end_start(self, start: _PrivateStart) -> None:
        self._starts.remove(start)
        if start.timer is not None:
            start.timer.cancel()
        assert start.task is not None
        start.task.add_done_callback(retrieve)
        start.task.cancel()
        if start.pipe is not None:
            self._pipes.close_soon(start.pipe, "nobody waits for the session any more")

    async def _open_pipe(self, *, is_private: bool, is_modern: bool) -> OpenPipe:
        """One more pipe; what nobody waits for makes room for it.

        Raises: UpstreamError.
        """
        while True:
            try:
                return await self._pipes.open(is_private=is_private, is_modern=is_modern)
            except UpstreamError as error:
                unclaimed = next((each for each in self._starts if each.on_event is None), None)
                if error.failure.reason != "pool_exhausted" or unclaimed is None:
                    raise
                self._end_start(unclaimed)

    async def _shared_pipe(self, revision: str, initialize: Request, timeout_s: float | None = None) -> OpenPipe:
        if revision == NEWEST_LEGACY and self._era.speaks_modern is None and _MODERN in self._under_way:
            await self._era_found(timeout_s)  # on a pipe that serves this revision where the server turns out to be a legacy one
        pipe = self._shared.get(revision)
        if pipe is not None and pipe.is_open:
            return pipe
        opened: OpenPipe = await self._once(revision, lambda: self._open_shared(revision, initialize), timeout_s)
        return opened

    async def _open_shared(self, revision: str, initialize: Request) -> OpenPipe:
        pipe = await self._open_pipe(is_private=False, is_modern=False)
        async with asyncio.timeout(max(OPEN_TIMEOUT_S, self._start_timeout_s)):
            await self._handshake(pipe, initialize, ignore_events)
            if pipe.is_open:  # the server has not refused
                await self._share(revision, pipe)
        return pipe

    async def _share(self, revision: str, pipe: OpenPipe) -> None:
        """Let all sessions of a revision have the pipe, whose server has answered the handshake.

        Raises: UpstreamError.
        """
        self._shared[revision] = pipe
        pipe.is_initialized = True
        try:
            await pipe.tell("", INITIALIZED, None)
        except UpstreamError as error:
            raise _not_opened(error) from None

    async def _handshake(self, pipe: OpenPipe, message: Request, on_event: EventHandler) -> None:
        """Ask for a session; the pipe keeps the answer, and is closed where that is an error.

        Raises: UpstreamError, with the pipe closed.
        """
        try:
            pipe.answer = await pipe.request("", message, on_event, None)
            self._has_missed_start = False
            if pipe.answer is None or not pipe.answer.result:
                self._era.refuse_handshake()
                self._pipes.close_soon(pipe, "the server has refused the session")
        except UpstreamError as error:
            self._pipes.close_soon(pipe, "the session could not be opened")
            raise _not_opened(error) from None
        except BaseException:
            self._note_silence(pipe)
            self._pipes.close_soon(pipe, "nobody waits for the session any more")
            raise

    async def _move(self, session: _Session) -> None:
        """Give a session that begins to keep state a pipe of its own, opened with its client's parameters."""
        if session.pipe.is_private:
            return
        shared = session.pipe
        pipe = await self._open_pipe(is_private=True, is_modern=False)
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await self._handshake(pipe, Request(MOVE_ID, "initialize", session.initialize), ignore_events)
        if session.has_ended or not pipe.is_open:
            self._pipes.close_soon(pipe, "the session is over")
            raise session_lost("the server has refused another connection for the session")
        pipe.is_initialized = True
        await pipe.tell(session.session_id, INITIALIZED, OPEN_TIMEOUT_S)
        session.pipe, session.moved_from = pipe, shared
        pipe.sessions.add(session.session_id)
        self._sessions[session.session_id] = session  # where it was forgotten because the shared pipe had to make room
        shared.sessions.discard(session.session_id)
        shared.end_streams(session.session_id)

    # ---- eras

    async def _modern_pipe(self, timeout_s: float | None) -> OpenPipe:
        if self._era.speaks_modern is False:
            raise only_legacy()
        pipe = self._shared.get(_MODERN)
        if pipe is not None and pipe.is_open:
            return pipe
        opened: OpenPipe = await self._once(_MODERN, self._open_modern, timeout_s)
        return opened

    async def _era_found(self, timeout_s: float | None) -> None:
        """Wait for the search that is under way. Where it has failed, whoever waits finds out more by a pipe of its own.

        Raises: UpstreamError where it takes longer.
        """
        try:
            await self._once(_MODERN, self._open_modern, timeout_s)
        except UpstreamError as error:
            if error.failure.reason == "upstream_timeout":
                raise

    async def _open_modern(self) -> OpenPipe:
        pipe = await self._open_pipe(is_private=False, is_modern=True)
        if self._era.speaks_modern is None:
            self._era.is_starting = self._is_starting(pipe)
            try:
                await self._find_era(pipe)
            finally:
                self._era.is_starting = False
        self._shared[_MODERN] = pipe
        return pipe

    async def _find_era(self, pipe: OpenPipe) -> None:
        """Learn the server's era from how it takes `server/discover`, or where that does not tell, a handshake.

        Both go over the very same pipe: a start may cost minutes. Only a server that leaves on what it does not know is started
        again, for the handshake alone.

        Source: MCP 2026-07-28, basic/transports/stdio, "Backward Compatibility". That a server which is silent or leaves must
        take a handshake to count as a legacy one, and otherwise as a broken one, is ours.

        Raises: UpstreamError; is_unsupported where the server is a legacy one, whose pipe is kept for its sessions.
        """
        longest_s = max(OPEN_TIMEOUT_S, self._start_timeout_s)
        discovery = self._questions.start(_answer(pipe, discover(PROBE_ID), longest_s))
        await asyncio.wait((discovery,), timeout=DISCOVER_TIMEOUT_S)
        handshake: asyncio.Task[Response | None] | None = None
        try:
            if not discovery.done():  # it is starting, or ignores what it does not know
                handshake = self._questions.start(_answer(pipe, initialize(PROBE_ID), longest_s))
                await asyncio.wait((discovery, handshake), return_when=asyncio.FIRST_COMPLETED)
                if not discovery.done() and not _is_taken(handshake.result()):
                    await asyncio.wait((discovery,), timeout=DISCOVER_TIMEOUT_S)
            if discovery.done():
                self._era.observe(discovery.result())
            if self._era.speaks_modern:
                self._has_missed_start = False
                return
            if pipe.is_open:
                handshake = handshake or self._questions.start(_answer(pipe, initialize(PROBE_ID), OPEN_TIMEOUT_S))
                await asyncio.wait((handshake,), timeout=OPEN_TIMEOUT_S)
            await self._take_as_legacy(pipe, handshake.result() if handshake is not None and handshake.done() else None)
        finally:
            discovery.cancel()
            if handshake is not None:
                handshake.cancel()

    async def _take_as_legacy(self, pipe: OpenPipe, answer: Response | None) -> None:
        """answer: to the handshake on the pipe, if any.

        Raises: UpstreamError, always; is_unsupported where the server is a legacy one.
        """
        is_decided = self._era.speaks_modern is False
        shared = self._shared.get(NEWEST_LEGACY)
        if pipe.is_open and _is_taken(answer) and (shared is None or not shared.is_open):
            self._has_missed_start = False
            pipe.turn_legacy()
            pipe.answer = answer
            await self._share(NEWEST_LEGACY, pipe)
        elif not pipe.is_open and not is_decided and (shared is None or not shared.is_open):
            opened = await self._once(NEWEST_LEGACY, lambda: self._open_shared(NEWEST_LEGACY, initialize(PROBE_ID)), None)
            if not opened.is_open:
                raise UpstreamError(Fate.UNREACHABLE, _NO_ERA)
        else:
            text = _NO_ERA if pipe.has_spoken else "the server has not said a word"
            self._note_silence(pipe)
            self._pipes.close_soon(pipe, "the server does not take a handshake here")
            if not is_decided and not _is_taken(answer):
                raise UpstreamError(Fate.UNREACHABLE, text)
        self._era.decide(speaks_modern=False)
        raise only_legacy()

    # ---- servers that are starting

    def _is_starting(self, pipe: OpenPipe) -> bool:
        age_s = asyncio.get_running_loop().time() - pipe.opened_s
        return pipe.is_open and not pipe.has_spoken and not self._has_missed_start and age_s < self._start_timeout_s

    def _note_silence(self, pipe: OpenPipe) -> None:
        """A pipe is given up: where its server has used up its time to start without a word, the next one gets no credit."""
        age_s = asyncio.get_running_loop().time() - pipe.opened_s
        self._has_missed_start |= not pipe.has_spoken and 0.0 < self._start_timeout_s <= age_s

    def _not_in_time(self, fate: Fate, text: str) -> UpstreamError:
        """How waiting for a pipe ends that has not been opened in time."""
        opened_s = min((pipe.opened_s for pipe in self._pipes if self._is_starting(pipe)), default=None)
        if opened_s is None:
            return UpstreamError(fate, text, reason="upstream_timeout")
        return UpstreamError(Fate.STARTING, f"starting since {asyncio.get_running_loop().time() - opened_s:.0f} s")

    # ---- pipes

    def _on_gone(self, pipe: OpenPipe) -> None:
        """Its sessions are lost with it."""
        for key in [key for key, shared in self._shared.items() if shared is pipe]:
            del self._shared[key]
            if key == _MODERN:
                self._era.forget()  # what is started or listens next may be another server
        for session_id in pipe.sessions:
            self._sessions.pop(session_id, None)
        pipe.sessions.clear()

    async def _once(self, key: str, make: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float | None) -> Any:
        """What `make` gives, made once for all who ask for it meanwhile. It goes on where one of them gives up.

        Raises: UpstreamError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._under_way.join(key, make)
        except TimeoutError:
            raise self._not_in_time(Fate.UNREACHABLE, "the server was not ready in time") from None

    # ---- probes

    async def probe(self, timeout_s: float) -> None:
        """Learn the server's era, then ask one connection for a sign of life; opens one where there is none.

        Where each is one session's own and busy, their callers' deadlines judge the server.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        ready_s = 0.8 * timeout_s  # whoever asks is told why, before the time that it has itself is over
        try:
            if self._era.speaks_modern is None:
                await self._modern_pipe(ready_s)
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
            return await self._modern_pipe(timeout_s)
        return await self._shared_pipe(NEWEST_LEGACY, initialize(PROBE_ID), timeout_s)

    async def close(self) -> None:
        self._under_way.cancel()
        for start in list(self._starts):
            self._end_start(start)
        await self._pipes.close()


def _is_for(start: _PrivateStart, params: bytes) -> bool:
    return start.on_event is None and start.params == params and start.pipe is not None and start.pipe.is_open


async def _answer(pipe: OpenPipe, request: Request, timeout_s: float) -> Response | None:
    """None where there is none."""
    try:
        return await pipe.request("", request, ignore_events, timeout_s)
    except UpstreamError:
        return None


def _is_taken(answer: Response | None) -> bool:
    return answer is not None and bool(answer.result)


def _read_initialize(params: bytes) -> tuple[str, bool]:
    """(the revision it leads to, whether it needs a pipe of its own); what cannot be read is for the server to refuse."""
    try:
        values = jsonrpc.members(params)
        revision = negotiated_legacy(msgspec.json.decode(values["protocolVersion"], type=str))
        can_be_asked = not _CAN_BE_ASKED.isdisjoint(jsonrpc.members(values["capabilities"]))
        return revision, can_be_asked or len(params) > _LONGEST_INITIALIZE_BYTES
    except (msgspec.DecodeError, RecursionError, KeyError):
        return NEWEST_LEGACY, True


def _not_opened(error: UpstreamError) -> UpstreamError:
    """What a handshake fails with: safe to repeat, nothing but it was sent; and there is no session yet that could be lost."""
    reason = "upstream_failed" if error.fate is Fate.SESSION_LOST else error.failure.reason
    return UpstreamError(Fate.UNREACHABLE, error.failure.text, reason=reason)


def _status(response: Response | None) -> int:
    """The HTTP status with which a stateless server would give this response."""
    if response is None or not response.error:
        return 200
    return 404 if error_code(response.error) == METHOD_NOT_FOUND else 400
