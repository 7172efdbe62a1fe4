"""Where a read from a socket puts what has come: one place for all connections of a thread, for nothing stays in it."""

from __future__ import annotations

import threading
from typing import Final

MOST_BYTES: Final = 262_144


class _OfThread(threading.local):
    """A program may run several gateways, each on the event loop of a thread of its own: the interpreter goes on with another
    one between what a read has brought and who looks at it.
    """

    def __init__(self) -> None:
        self.whole = memoryview(bytearray(MOST_BYTES))


_buffers: Final = _OfThread()


def read_buffer(byte_count: int) -> memoryview:
    """That of the thread that asks. byte_count: what one read may bring, MOST_BYTES at most."""
    return _buffers.whole[:byte_count]
