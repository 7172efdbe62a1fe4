"""Deadlines of many pieces of work on one event loop, kept by one timer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol


class Timed(Protocol):
    """What has a deadline. due_s: by the loop's clock."""

    due_s: float

    def has_passed(self) -> None:
        """Its time is over; called once, and not after it was ended. Must not raise: others have their deadlines behind it."""


class Deadlines:
    """Ends what takes too long as `asyncio.timeout` does, without a timer for each: every call has a deadline, and next to none
    comes to it.

    The timer is set for the earliest deadline that there was, and looks then which one is next; none, and it ends.
    """

    def __init__(self) -> None:
        self._running: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None  # set whenever anything runs; it may come too early, never too late

    def within(self, timeout_s: float | None) -> Deadline:
        """A block that has so long from its beginning on; None for no limit."""
        return Deadline(self, timeout_s)

    def begin(self, deadline: Timed) -> None:
        """Have it called once its time is over."""
        self._running.add(deadline)
        timer = self._timer
        if timer is None or deadline.due_s < timer.when():
            self._set_timer(deadline.due_s)

    def end(self, deadline: Timed) -> None:
        """Harmless for one that was ended, or has passed."""
        self._running.discard(deadline)

    def _set_timer(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(due_s, self._look)

    def _look(self) -> None:
        now_s = asyncio.get_running_loop().time()
        self._timer = None
        for deadline in [each for each in self._running if each.due_s <= now_s]:
            if deadline in self._running:  # and was not ended by what another one has brought about
                self._running.discard(deadline)
                deadline.has_passed()
        if self._running:
            self._set_timer(min(each.due_s for each in self._running))


class Deadline:
    """A block within which its task is cancelled once its time is over; the block ends with TimeoutError then.

    Where the task is cancelled by somebody else as well, it stays cancelled. Source: CPython, asyncio.timeouts.Timeout.

    due_s: by the loop's clock.
    """

    __slots__ = ("_cancelling", "_deadlines", "_is_over", "_task", "_timeout_s", "due_s")

    def __init__(self, deadlines: Deadlines, timeout_s: float | None) -> None:
        self._deadlines = deadlines
        self._timeout_s = timeout_s
        self._is_over = False

    def __enter__(self) -> None:
        if self._timeout_s is not None:
            loop = asyncio.get_running_loop()
            task = asyncio.current_task(loop)
            if task is None:
                raise RuntimeError("a deadline is a task's")
            self._task, self._cancelling = task, task.cancelling()
            self.due_s = loop.time() + self._timeout_s
            self._deadlines.begin(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Raises: TimeoutError."""
        if self._timeout_s is None:
            return
        self._deadlines.end(self)
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def has_passed(self) -> None:
        self._is_over = True
        self._task.cancel()
