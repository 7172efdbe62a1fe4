"""Threads in which an event loop looks up names, and for which nobody waits at the end of the process."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

_Result = TypeVar("_Result")
_IDLE_S: Final = 10.0


class LookupThreads(ThreadPoolExecutor):
    """Executor for `set_default_executor`, which takes nothing but a `ThreadPoolExecutor`.

    The C library looks a name up for as long as the name servers do not answer, often half a minute, and nothing can call it
    back. The base class waits for such a thread when its loop ends, and again when the process does; these are daemons, and end
    by themselves when they have had nothing to do for a while.

    max_workers: names looked up at once; more wait.
    """

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers)
        self._most = max_workers
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._count = 0
        self._waiting = 0
        # Not a `queue.SimpleQueue`: before Python 3.13 its `get` waits without end when another thread was quicker at the very
        # end of its time.
        self._changed = threading.Condition(threading.Lock())

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        future: Future[_Result] = Future()
        with self._changed:
            self._calls.append((future, functools.partial(fn, *args, **kwargs)))
            if len(self._calls) <= self._waiting:
                self._changed.notify()
            elif self._count < self._most:
                self._count += 1
                threading.Thread(target=self._work, name="lookup", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: whatever a thread waits for, nobody waits for the thread."""

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        """The next call; None when there was none for a while, and the thread is to end."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: self._calls, _IDLE_S)
            self._waiting -= 1
            if self._calls:
                return self._calls.popleft()
            self._count -= 1
            return None

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            future, call = taken
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del taken, future, call
