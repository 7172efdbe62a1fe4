"""How a pipe begins: it is opened, its server asked for a session, and waited for as long as a server may take to start.

A server may take long to say its first word. Until then it is starting: its pipe is kept, whoever gives up waiting for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import SharedTasks, retrieve
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamError
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request

from .open_pipe import OpenPipe
from .pipe_pool import OPEN_TIMEOUT_S, PipePool

UNCLAIMED_S: Final = 60.0
"""So long a pipe is kept for a client that has given up waiting while its server started; clients try again after seconds."""

HANDOVER_S: Final = 1.0
"""So long the next try of a client waits for the word that its first has ended. It may overtake that word, which comes by another
cell or over another connection; and no client is impatient earlier."""


@attrs.define
class PrivateStart:
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


class PipeStarts:
    """Opens the pipes of one server, and tells its silence at the start from failure.

    start_timeout_s: how long a new connection's server may be silent and count as starting; 0 where a connection shows it runs.
    """

    def __init__(self, pipes: PipePool, era: ServerEra, *, start_timeout_s: float) -> None:
        self._pipes = pipes
        self._era = era
        self._start_timeout_s = start_timeout_s
        self.longest_s = max(OPEN_TIMEOUT_S, start_timeout_s)
        self._has_missed_start = False  # the last one: until it has spoken again, its silence is a failure
        self._under_way: SharedTasks[str, Any] = SharedTasks()
        self._private: list[PrivateStart] = []  # oldest first
        self._has_changed = asyncio.Event()  # one of them has ended, or lost its client; replaced each time

    # ---- pipes of one session

    async def private_pipe(self, message: Request, on_event: EventHandler) -> OpenPipe:
        """A pipe with a session of its own. One that is still starting outlives its client's patience, for the next try.

        message: the client's `initialize`.

        Raises: UpstreamError.
        """
        start = await self._unclaimed(message.params)
        if start is None:
            start = PrivateStart(message.params)
            start.task = asyncio.get_running_loop().create_task(self._start_private(start, message))
            self._private.append(start)
        if start.timer is not None:
            start.timer.cancel()
        start.on_event = on_event
        assert start.task is not None
        try:
            pipe = await asyncio.shield(start.task)
        except asyncio.CancelledError:
            start.on_event = None
            self._tell_change()
            if start.pipe is not None and self.is_starting(start.pipe):
                start.timer = asyncio.get_running_loop().call_later(UNCLAIMED_S, self._end_private, start)
                start.task.add_done_callback(retrieve)
            else:
                self._end_private(start)
            raise
        except UpstreamError:
            self._remove(start)
            raise
        self._remove(start)
        return pipe

    async def _unclaimed(self, params: bytes) -> PrivateStart | None:
        """A start for whoever sends these params; waits a little where one that takes long may lose its client any moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANDOVER_S):
                while True:
                    alike = [each for each in self._private if each.params == params]
                    start = next((each for each in alike if each.on_event is None and _is_open(each)), None)
                    if start is not None or not any(self._is_slow(each) for each in alike):
                        return start
                    await self._has_changed.wait()
        return None

    def _is_slow(self, start: PrivateStart) -> bool:
        pipe = start.pipe
        return pipe is not None and self.is_starting(pipe) and asyncio.get_running_loop().time() - pipe.opened_s >= HANDOVER_S

    def _tell_change(self) -> None:
        self._has_changed.set()
        self._has_changed = asyncio.Event()

    def _remove(self, start: PrivateStart) -> None:
        self._private.remove(start)
        self._tell_change()

    async def _start_private(self, start: PrivateStart, message: Request) -> OpenPipe:
        async def on_event(event: Message | None, event_id: str | None) -> None:
            if start.on_event is not None:
                await start.on_event(event, event_id)

        start.pipe = await self.open(is_private=True, is_modern=False)
        await self.handshake(start.pipe, message, on_event)
        return start.pipe

    def _end_private(self, start: PrivateStart) -> None:
        self._remove(start)
        if start.timer is not None:
            start.timer.cancel()
        assert start.task is not None
        start.task.add_done_callback(retrieve)
        start.task.cancel()
        if start.pipe is not None:
            self._pipes.close_soon(start.pipe, "nobody waits for the session any more")

    # ---- any pipe

    async def open(self, *, is_private: bool, is_modern: bool) -> OpenPipe:
        """One more pipe; what nobody waits for makes room for it.

        Raises: UpstreamError.
        """
        while True:
            try:
                return await self._pipes.open(is_private=is_private, is_modern=is_modern)
            except UpstreamError as error:
                unclaimed = next((each for each in self._private if each.on_event is None), None)
                if error.failure.reason != "pool_exhausted" or unclaimed is None:
                    raise
                self._end_private(unclaimed)

    async def handshake(self, pipe: OpenPipe, message: Request, on_event: EventHandler) -> None:
        """Ask for a session; the pipe keeps the answer, and is closed where that is an error.

        Raises: UpstreamError, with the pipe closed.
        """
        try:
            pipe.answer = await pipe.request("", message, on_event, None)
            self.note_word()
            if pipe.answer is None or not pipe.answer.result:
                self._era.refuse_handshake()
                self._pipes.close_soon(pipe, "the server has refused the session")
        except UpstreamError as error:
            self._pipes.close_soon(pipe, "the session could not be opened")
            raise not_opened(error) from None
        except BaseException:
            self.note_silence(pipe)
            self._pipes.close_soon(pipe, "nobody waits for the session any more")
            raise

    def is_under_way(self, key: str) -> bool:
        return key in self._under_way

    async def once(self, key: str, make: Callable[[], Coroutine[Any, Any, Any]], timeout_s: float | None) -> Any:
        """What `make` gives, made once for all who ask for it meanwhile. It goes on where one of them gives up.

        Raises: UpstreamError.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._under_way.join(key, make)
        except TimeoutError:
            raise self.not_in_time(Fate.UNREACHABLE, "the server was not ready in time") from None

    # ---- the first word

    def is_starting(self, pipe: OpenPipe) -> bool:
        age_s = asyncio.get_running_loop().time() - pipe.opened_s
        return pipe.is_open and not pipe.has_spoken and not self._has_missed_start and age_s < self._start_timeout_s

    def note_word(self) -> None:
        """The server has answered: the next one may take its time again."""
        self._has_missed_start = False

    def note_silence(self, pipe: OpenPipe) -> None:
        """A pipe is given up: where its server has used up its time to start without a word, the next one gets no credit."""
        age_s = asyncio.get_running_loop().time() - pipe.opened_s
        self._has_missed_start |= not pipe.has_spoken and 0.0 < self._start_timeout_s <= age_s

    def not_in_time(self, fate: Fate, text: str) -> UpstreamError:
        """How waiting for a pipe ends that has not been opened in time."""
        opened_s = min((pipe.opened_s for pipe in self._pipes if self.is_starting(pipe)), default=None)
        if opened_s is None:
            return UpstreamError(fate, text, reason="upstream_timeout")
        return UpstreamError(Fate.STARTING, f"starting since {asyncio.get_running_loop().time() - opened_s:.0f} s")

    def close(self) -> None:
        self._under_way.cancel()
        for start in list(self._private):
            self._end_private(start)


def _is_open(start: PrivateStart) -> bool:
    return start.pipe is not None and start.pipe.is_open


def not_opened(error: UpstreamError) -> UpstreamError:
    """What a handshake fails with: safe to repeat, nothing but it was sent; and there is no session yet that could be lost."""
    reason = "upstream_failed" if error.fate is Fate.SESSION_LOST else error.failure.reason
    return UpstreamError(Fate.UNREACHABLE, error.failure.text, reason=reason)
