"""An exchange with a server that needs no task: whoever awaits it would be woken once, and only to end."""

from __future__ import annotations

import abc
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any

from .upstream_port import UpstreamAnswer

OnEnd = Callable[[UpstreamAnswer | BaseException], None]
"""Takes how an exchange ended. Must not raise."""


class UntaskedExchange(Coroutine[Any, Any, UpstreamAnswer]):
    """What `UpstreamConversation.exchange` gives where it can: to be begun, or to be awaited as any other, once.

    A task costs a call some ten microseconds, and most calls are one request and one answer.
    """

    __slots__ = ("_coroutine",)

    _coroutine: Coroutine[Any, Any, UpstreamAnswer] | None

    @abc.abstractmethod
    def begin(self, on_end: OnEnd) -> None:
        """Run it from now on, in no task. on_end: called once, not from here, unless it is cancelled before."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """End one that was begun, as cancelling the task of any other does; harmless for one that has ended."""

    @abc.abstractmethod
    def awaited(self) -> Coroutine[Any, Any, UpstreamAnswer]:
        """The same for who has a task."""

    # ---- as a coroutine

    def __await__(self) -> Generator[Any, Any, UpstreamAnswer]:
        return self.awaited().__await__()

    def send(self, value: Any) -> Any:
        return self._own_coroutine().send(value)

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        return self._own_coroutine().throw(error)

    def close(self) -> None:
        if self._coroutine is not None:
            self._coroutine.close()

    def _own_coroutine(self) -> Coroutine[Any, Any, UpstreamAnswer]:
        if self._coroutine is None:
            self._coroutine = self.awaited()
        return self._coroutine
