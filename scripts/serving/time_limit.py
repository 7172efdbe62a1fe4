"""A limit for calls that have none, or one too long: Thespian's to an admin that has died wait for up to a minute."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def at_most(timeout_s: float, error: Exception) -> Iterator[None]:
    """Raise the error in the block after that time; in the main thread only, once at a time."""

    def raise_it(_number: int, _frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
