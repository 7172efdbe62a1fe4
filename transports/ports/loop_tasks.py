"""Tasks that outlive who starts them, and tasks that several wait for.

`asyncio.TaskGroup` waits for its tasks where they were started; these go on while their starter does something else, or has gone.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
Result = TypeVar("Result")


class HeldTasks:
    """Holds tasks until they end: the loop does so only weakly, and one that nobody holds may vanish before its end."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many run."""
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until those that run now have ended, or for so long; however they end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)


class SharedTasks(Generic[Key, Result]):
    """Work that is done once for all who ask for it meanwhile.

    It goes on where one of them gives up, and even where all have.
    """

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[Result]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether work under this key is under way."""
        return key in self._tasks

    async def join(self, key: Key, make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """What the work under this key gives, or the exception that it ends with; `make` begins it where none is under way."""
        task = self._tasks.get(key)
        if task is None or task.done():
            task = self._tasks[key] = asyncio.get_running_loop().create_task(make())
            task.add_done_callback(functools.partial(self._ended, key))
        return await asyncio.shield(task)

    def cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _ended(self, key: Key, task: asyncio.Task[Result]) -> None:
        if self._tasks[key] is task:
            del self._tasks[key]
        retrieve(task)  # whoever still waits is told; nobody need be


def retrieve(done: asyncio.Future[Any]) -> None:
    """Take note of how it ended, so that asyncio does not report an error that is told elsewhere. To be a done callback."""
    if not done.cancelled():
        done.exception()
