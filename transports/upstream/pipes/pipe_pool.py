"""The open pipes to one server: how many there may be, when the next attempt is due, which one has to go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, Protocol, TypeVar

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError

from .backoff import Backoff
from .message_pipe import MessagePipe, PipeClosed
from .open_pipe import OpenPipe

_logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S: Final = 30.0
CLOSING_AT_ONCE: Final = 16
# A pipe that ended earlier, or without a word of the server, counts as one that could not be opened: npx takes longer to fail.
_LIVED_S: Final = 2.0
_LONGEST_WAIT_S: Final = 2.0  # for the next attempt; beyond that a caller is told instead
_SWEEP_S: Final = 15.0


class PipeUse(Protocol):
    """is_busy: a request waits for its answer. has_stream: a client listens. used_s: when it was last spoken on."""

    @property
    def is_busy(self) -> bool: ...

    @property
    def has_stream(self) -> bool: ...

    @property
    def used_s(self) -> float: ...


_Pipe = TypeVar("_Pipe", bound=PipeUse)


class PipePool:
    """Opens, keeps and closes pipes.

    open_pipe: makes a connection that is not open yet.
    max_pipes: of them at most at any time; those that are just being closed come on top, and are few.
    idle_s:    without a call and without a listener for so long, one is closed.
    on_gone:   called with each pipe that has ended, or will be closed, before anybody can use it again.
    """

    def __init__(
        self,
        name: str,
        open_pipe: Callable[[], MessagePipe],
        *,
        max_pipes: int,
        idle_s: float,
        on_gone: Callable[[OpenPipe], None],
    ) -> None:
        self._name = name
        self._open_pipe = open_pipe
        self._max_pipes = max_pipes
        self._idle_s = idle_s
        self._on_gone = on_gone
        self._pipes: list[OpenPipe] = []
        self._opening_count = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._backoff = Backoff()
        self._end_text = ""
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
        loop = asyncio.get_running_loop()
        delay_s = self._backoff.delay_s(loop.time())
        if delay_s > _LONGEST_WAIT_S:
            text = f"failed {self._backoff.failure_count} times in a row, last: {self._end_text}; next attempt in {delay_s:.1f} s"
            raise UpstreamError(Fate.UNREACHABLE, text)
        await asyncio.sleep(delay_s)
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
            self._end_text = str(error) or "not open in time"
            self._backoff.failed(loop.time())
            raise UpstreamError(Fate.UNREACHABLE, self._end_text) from None
        finally:
            self._opening_count -= 1
        live = OpenPipe(pipe, name=self._name, is_private=is_private, is_modern=is_modern, on_end=self._on_end)
        self._pipes.append(live)
        loop.call_later(_LIVED_S, self._judge, live)
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP_S, self.sweep)
        return live

    def _make_room(self) -> None:
        if len(self._pipes) + self._opening_count < self._max_pipes:
            return
        least = least_needed(self._pipes)
        if least is None:
            text = f"each of the {self._max_pipes} connections to the server is in use"
            raise UpstreamError(Fate.TURNED_AWAY, text, reason="pool_exhausted")
        self.close_soon(least, "another session needed the connection")

    def _on_end(self, pipe: OpenPipe) -> None:
        now_s = asyncio.get_running_loop().time()
        self._end_text = pipe.end_text
        _logger.warning("%s: %s", self._name, self._end_text)
        if not pipe.has_spoken or now_s - pipe.opened_s < _LIVED_S:
            self._backoff.failed(now_s)
        self.close_soon(pipe, self._end_text)

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
        self._sweeper = loop.call_later(_SWEEP_S, self.sweep) if self._pipes else None

    async def close(self) -> None:
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pipe in list(self._pipes):
            self.close_soon(pipe, "the connection was closed")
        while self._closing:
            await asyncio.wait(self._closing)


def least_needed(pipes: Iterable[_Pipe]) -> _Pipe | None:
    """The one to close for another: rather one without a listener, then the least recently used; never a busy one."""
    return min((pipe for pipe in pipes if not pipe.is_busy), key=lambda pipe: (pipe.has_stream, pipe.used_s), default=None)


def idle(pipes: Iterable[_Pipe], now_s: float, idle_s: float) -> list[_Pipe]:
    """Those that nobody has used for so long. A client that listens is still there, however silent."""
    return [pipe for pipe in pipes if not pipe.is_busy and not pipe.has_stream and now_s - pipe.used_s >= idle_s]
