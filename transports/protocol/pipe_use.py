"""Which of the connections to one server may be closed: those that nobody waits on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class PipeUse(Protocol):
    """is_busy: a request waits for its answer. has_stream: a client listens. used_s: when it was last spoken on."""

    @property
    def is_busy(self) -> bool: ...

    @property
    def has_stream(self) -> bool: ...

    @property
    def used_s(self) -> float: ...


_Pipe = TypeVar("_Pipe", bound=PipeUse)


def least_needed(pipes: Iterable[_Pipe]) -> _Pipe | None:
    """The one to close for another: rather one without a listener, then the least recently used; never a busy one."""
    return min((pipe for pipe in pipes if not pipe.is_busy), key=lambda pipe: (pipe.has_stream, pipe.used_s), default=None)


def idle(pipes: Iterable[_Pipe], now_s: float, idle_s: float) -> list[_Pipe]:
    """Those that nobody has used for so long. A client that listens is still there, however silent."""
    return [pipe for pipe in pipes if not pipe.is_busy and not pipe.has_stream and now_s - pipe.used_s >= idle_s]
