"""The open pipes to one server: how many there may be, when the next attempt is due, which one has to go."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.http.dropped_messages import DroppedMessages

from .backoff import Backoff
from .message_pipe import MessagePipe, NeverOpens, PipeClosed
from .open_pipe import OpenPipe

_logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S: Final = 30.0
CLOSING_AT_ONCE: Final = 16
# A pipe that ended earlier and served nobody, or without a word of the server, counts as one that could not be opened: npx takes
# longer to fail.
_LIVED_S: Final = 10.0
_LONGEST_WAIT_S: Final = 2.0  # for the next attempt; beyond that a caller is told instead
_LONGEST_PAUSE_S: Final = 75.0  # between two attempts; a fifth of it is left to chance
_LOOP: Final = 5  # failures in a row, the first of which a caller does not wait out
_TRIAL_S: Final = 0.02
_SWEEP_S: Final = 15.0


class PipeUse(Protocol):
    """is_private: it serves one session. is_busy: a request waits for its answer. has_stream: a client listens.

    keeps_state: its client may come back for more than its answers. used_s: when a client last spoke on it.
    """

    @property
    def is_private(self) -> bool: ...

    @property
    def is_busy(self) -> bool: ...

    @property
    def has_stream(self) -> bool: ...

    @property
    def keeps_state(self) -> bool: ...

    @property
    def used_s(self) -> float: ...


_Pipe = TypeVar("_Pipe", bound=PipeUse)


class PipePool:
    """Opens, keeps and closes pipes.

    open_pipe: makes a connection that is not open yet.
    backend:   as it is called in metrics.
    max_pipes: of them at most at any time; those that are just being closed come on top, and are few.
    idle_s:    without a call and without a listener for so long, one is closed.
    private_idle_s: the same for one that serves one session and keeps nothing for it.
    on_gone:   called with each pipe that has ended, or will be closed, before anybody can use it again.
    trouble:   what it is called that one pipe after the other fails.
    """

    def __init__(
        self,
        name: str,
        open_pipe: Callable[[], MessagePipe],
        *,
        backend: str,
        max_pipes: int,
        idle_s: float,
        private_idle_s: float = float("inf"),
        on_gone: Callable[[OpenPipe], None],
        trouble: str = "no connection",
    ) -> None:
        self._name = name
        self._dropped = DroppedMessages(backend, name)
        self._open_pipe = open_pipe
        self._max_pipes = max_pipes
        self._idle_s = idle_s
        self._private_idle_s = private_idle_s
        self._sweep_s = min(_SWEEP_S, private_idle_s / 4)
        self._on_gone = on_gone
        self._trouble = trouble
        self._pipes: list[OpenPipe] = []
        self._opening_count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._backoff = Backoff(longest_s=_LONGEST_PAUSE_S, chance=random.random)
        self._end = PipeClosed("")
        self._is_closed = False
        self._sweeper: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[OpenPipe]:
        return iter(self._pipes)

    def __len__(self) -> int:
        return len(self._pipes)

    async def open(self, *, is_private: bool, is_modern: bool) -> OpenPipe:
        """Open one more pipe, where there is room or an idle one can make it.

        Raises: UpstreamError, of a fate with which nothing was sent.
        """
        await self._turn()
        while len(self._closing) >= CLOSING_AT_ONCE:
            await asyncio.wait(self._closing, return_when=asyncio.FIRST_COMPLETED)
        if self._is_closed:
            raise UpstreamError(Fate.TURNED_AWAY, "the connection is closed")
        self._make_room()
        pipe = self._open_pipe()
        self._opening_count += 1
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await pipe.open()
            if self._is_closed:
                raise PipeClosed("the connection is closed")
        except BaseException as error:
            self._hold_until_closed(pipe.close())
            if not isinstance(error, PipeClosed | TimeoutError):
                raise
            self._failed(error if isinstance(error, PipeClosed) else PipeClosed("not open in time"))
            raise UpstreamError(Fate.UNREACHABLE, self._end.told, is_certain=isinstance(self._end, NeverOpens)) from None
        finally:
            self._opening_count -= 1
        live = OpenPipe(
            pipe,
            name=self._name,
            is_private=is_private,
            is_modern=is_modern,
            on_end=self._on_end,
            dropped=self._dropped,
        )
        self._pipes.append(live)
        loop = asyncio.get_running_loop()
        loop.call_later(_LIVED_S, self._judge, live)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._sweep_s, self.sweep)
        return live

    async def _turn(self) -> None:
        """Wait until the next attempt is due.

        Raises: UpstreamError where that is too long for a caller.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + _LONGEST_WAIT_S
        while wait_s := self._backoff.delay_s(loop.time()) or (_TRIAL_S if self._is_on_trial() else 0.0):
            if loop.time() + wait_s > give_up_s:
                raise self._sent_away(wait_s)
            await asyncio.sleep(wait_s)

    def pause(self) -> UpstreamError | None:
        """What callers are told while the server is left alone; None where the next attempt is due soon."""
        wait_s = self._backoff.delay_s(asyncio.get_running_loop().time())
        return self._sent_away(wait_s) if wait_s > _LONGEST_WAIT_S else None

    def _sent_away(self, wait_s: float) -> UpstreamError:
        why = Failure(
            Fate.TURNED_AWAY, self._loop_text(wait_s, self._end.told), reason="no_backend", retry_after_s=max(1.0, wait_s)
        )
        return UpstreamError.of(why)

    def _is_on_trial(self) -> bool:
        """Whether one attempt of a loop is under way: callers who were sent away all come back for the same one."""
        if self._backoff.failure_count < _LOOP:
            return False
        return self._opening_count > 0 or any(pipe.is_open and not pipe.has_spoken for pipe in self._pipes)

    def _loop_text(self, wait_s: float, last: str) -> str:
        count = self._backoff.failure_count
        return f"{self._trouble}, next try in {math.ceil(wait_s)} s: failed {count} times in a row, last: {last}"

    def _failed(self, end: PipeClosed) -> None:
        """Take in one failure more, and write of it where the log does not tell it already: a loop would fill it."""
        now_s = asyncio.get_running_loop().time()
        self._end = end
        self._backoff.failed(now_s)
        if self._backoff.failure_count == 1:
            _logger.warning("%s: %s", self._name, end)
        elif self._backoff.is_worth_telling:
            _logger.warning("%s: %s", self._name, self._loop_text(self._backoff.delay_s(now_s), str(end)))

    def _make_room(self) -> None:
        if len(self._pipes) + self._opening_count < self._max_pipes:
            return
        least = least_needed(self._pipes)
        if least is None:
            text = f"each of the {self._max_pipes} connections to the server is in use"
            raise UpstreamError(Fate.TURNED_AWAY, text, reason="pool_exhausted")
        self.close_soon(least, "another session needed the connection")

    def _on_end(self, pipe: OpenPipe) -> None:
        if pipe.has_served:
            self._backoff.succeeded()
            _logger.warning("%s: %s", self._name, pipe.end)
        elif not pipe.has_spoken or asyncio.get_running_loop().time() - pipe.opened_s < _LIVED_S:
            self._failed(pipe.end)
        else:
            _logger.warning("%s: %s", self._name, pipe.end)
        self.close_soon(pipe, pipe.end.told)

    def _judge(self, pipe: OpenPipe) -> None:
        if pipe.is_open and pipe.has_spoken:
            self._backoff.succeeded()
        elif pipe.is_open:
            asyncio.get_running_loop().call_later(_LIVED_S, self._judge, pipe)

    def close_soon(self, pipe: OpenPipe, reason: str) -> None:
        """Let go of a pipe now, and let it end by and by."""
        if pipe in self._pipes:
            self._pipes.remove(pipe)
            self._on_gone(pipe)
        pipe.leave(reason)
        self._hold_until_closed(pipe.close())

    def _hold_until_closed(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def sweep(self) -> None:
        """Close what nobody uses; looks again by itself as long as there is anything open."""
        loop = asyncio.get_running_loop()
        for pipe in idle(self._pipes, loop.time(), self._idle_s):
            self.close_soon(pipe, "nobody used the connection")
        for pipe in sleepers(self._pipes, loop.time(), self._private_idle_s):
            self.close_soon(pipe, "the session does nothing")
        self._sweeper = loop.call_later(self._sweep_s, self.sweep) if self._pipes else None

    async def close(self) -> None:
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pipe in list(self._pipes):
            self.close_soon(pipe, "the connection was closed")
        while self._closing:
            await asyncio.wait(self._closing)


def least_needed(pipes: Iterable[_Pipe]) -> _Pipe | None:
    """The one to close for another: rather one that nobody listens to or comes back for, then the least recently used.

    Never a busy one.
    """
    free = (pipe for pipe in pipes if not pipe.is_busy)
    return min(free, key=lambda pipe: (pipe.has_stream, pipe.keeps_state, pipe.used_s), default=None)


def idle(pipes: Iterable[_Pipe], now_s: float, idle_s: float) -> list[_Pipe]:
    """Those that nobody has used for so long. A client that listens is still there, however silent."""
    return [pipe for pipe in pipes if not pipe.is_busy and not pipe.has_stream and now_s - pipe.used_s >= idle_s]


def sleepers(pipes: Iterable[_Pipe], now_s: float, idle_s: float) -> list[_Pipe]:
    """Those of one session that has done nothing for so long and has nothing open, the longest idle first."""
    idlers = [pipe for pipe in idle(pipes, now_s, idle_s) if pipe.is_private and not pipe.keeps_state]
    return sorted(idlers, key=lambda pipe: pipe.used_s)
