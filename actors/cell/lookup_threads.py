"""Threads in which an event loop looks up names, and for which nobody waits at the end of the process."""

from __future__ import annotations

import functools
import queue
import threading
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
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._count = 0
        self._free = 0  # threads that wait, less calls that do
        self._lock = threading.Lock()

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        future: Future[_Result] = Future()
        with self._lock:
            if self._free > 0 or self._count == self._most:
                self._free -= 1
            else:
                self._count += 1
                threading.Thread(target=self._work, name="lookup", daemon=True).start()
        self._calls.put((future, functools.partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: whatever a thread waits for, nobody waits for the thread."""

    def _work(self) -> None:
        while True:
            try:
                future, call = self._calls.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if self._free > 0:  # otherwise a call is on its way to one of those who wait
                        self._free -= 1
                        self._count -= 1
                        return
                continue
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del future, call
            with self._lock:
                self._free += 1
