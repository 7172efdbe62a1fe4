"""What waits to be sent to clients that read slower than they are answered: counted, bounded, and given up after a while.

Tornado keeps without a bound what a socket does not take.
"""

from __future__ import annotations

import fcntl
import logging
import socket
import struct
import termios
import time
from asyncio import Future
from collections.abc import Callable
from typing import Final

import attrs
from tornado.iostream import IOStream

from mcp_gateway.transports.ports.loop_tasks import retrieve
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.log_budget import LogBudget

from .buffered_bytes import OUT, BufferedBytes, HeldBytes

_logger = logging.getLogger(__name__)

WRITE_TIMEOUT: Final = "write_timeout"
ADDRESS_SHARE: Final = "address_share"
BUDGET: Final = "budget"
_INT: Final = struct.Struct("i")
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: what the system has not sent is dropped at once; megabytes for each client otherwise, for minutes."""


@attrs.define(eq=False)
class _Waiting:
    """A connection whose client has yet to read.

    taken_bytes: so many its client had taken when we looked last; progress_s: when these had become more.
    """

    stream: IOStream
    address: str
    held: HeldBytes
    taken_bytes: int
    progress_s: float
    callbacks: list[Callable[[], None]] = attrs.field(factory=list)

    def look(self, now_s: float) -> None:
        """See whether the client has read since."""
        if not self.stream.closed() and (taken_bytes := _taken_bytes(self.stream)) > self.taken_bytes:
            self.taken_bytes, self.progress_s = taken_bytes, now_s


class UnsentBytes:
    """The connections of a cell whose clients do not read as fast as they are answered.

    What waits counts in the budget of `buffered`. Where that is exceeded, connections are cut until it is not: those of the
    address that has too much or, where all together have, of the one that has most; first who has read nothing for longest. The
    newest answer may itself be cut, if it alone is too much.

    write_timeout_s: how long a client may take not a single byte.
    """

    def __init__(self, buffered: BufferedBytes, write_timeout_s: float) -> None:
        self._buffered = buffered
        self._write_timeout_s = write_timeout_s
        self._waiting: dict[IOStream, _Waiting] = {}
        self._log_budget = LogBudget(lines=1)

    def written(self, stream: IOStream, address: str) -> None:
        """Count what a write has left over; to be called after each. It may cut the connection."""
        if not stream.writing():
            return
        waiting = self._waiting.get(stream)
        is_new = waiting is None
        if waiting is None:
            held = self._buffered.of(address, OUT)
            waiting = _Waiting(stream, address, held, _taken_bytes(stream), time.monotonic())
            self._waiting[stream] = waiting
            self._await(waiting)
        self._count(waiting, is_new)

    def when_sent(self, stream: IOStream, callback: Callable[[], None]) -> None:
        """Call back once the socket has taken all that was written, or is closed: at once, where nothing waits."""
        waiting = self._waiting.get(stream)
        if waiting is None:
            callback()
        else:
            waiting.callbacks.append(callback)

    def sweep(self, now_s: float) -> None:
        """Give back what has been taken meanwhile, and cut who takes nothing."""
        for waiting in list(self._waiting.values()):
            if waiting.stream.closed():
                continue
            waiting.look(now_s)
            if now_s - waiting.progress_s >= self._write_timeout_s:
                self._cut(waiting, WRITE_TIMEOUT)
            else:
                waiting.held.hold(_unsent_bytes(waiting.stream))

    # ---- parts

    def _await(self, waiting: _Waiting) -> None:
        """An empty write is done when all before it are."""
        waiting.stream.write(b"").add_done_callback(lambda done: self._sent(waiting, done))

    def _sent(self, waiting: _Waiting, done: Future[None]) -> None:
        retrieve(done)
        if waiting.stream.writing():  # more was written meanwhile
            waiting.held.hold(_unsent_bytes(waiting.stream))
            self._await(waiting)
        else:
            self._settle(waiting)

    def _settle(self, waiting: _Waiting) -> None:
        if self._waiting.pop(waiting.stream, None) is not None:
            waiting.held.release()
            for callback in waiting.callbacks:
                callback()

    def _count(self, waiting: _Waiting, is_new: bool) -> None:
        byte_count = _unsent_bytes(waiting.stream)
        while not waiting.held.hold(byte_count):
            budget, more = self._buffered.budget, byte_count - waiting.held.byte_count
            is_share = budget.held_by(waiting.address) + more > budget.largest_share
            address = waiting.address if is_share else self._largest_address(waiting, more)
            victim = self._longest_stalled(address, waiting if is_new else None)
            self._cut(victim, ADDRESS_SHARE if is_share else BUDGET)
            if victim is waiting:
                return

    def _largest_address(self, growing: _Waiting, more: int) -> str:
        """Whose clients leave most unread, once one of them has so much more to read."""
        byte_counts: dict[str, int] = {growing.address: more}
        for each in self._waiting.values():
            byte_counts[each.address] = byte_counts.get(each.address, 0) + each.held.byte_count
        return max(byte_counts, key=byte_counts.__getitem__)

    def _longest_stalled(self, address: str, newest: _Waiting | None) -> _Waiting:
        """Who of an address has read nothing for longest; the newest, of which nothing is known yet, only where it is alone."""
        now_s = time.monotonic()
        several = [each for each in self._waiting.values() if each.address == address]
        for each in several:
            each.look(now_s)
        return min(several, key=lambda each: (each is newest, each.progress_s))

    def _cut(self, waiting: _Waiting, reason: str) -> None:
        if waiting.stream.closed():  # its end was about to be told
            self._settle(waiting)
            return
        metrics.clients_cut_total.labels(reason).inc()
        if self._log_budget.take(time.monotonic()) is not None:
            text = "a client at %s does not read and was cut off, with %d bytes to send to it: %s"
            _logger.warning(text, waiting.address, waiting.held.byte_count, reason)
        waiting.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        waiting.stream.close()
        self._settle(waiting)


def _unsent_bytes(stream: IOStream) -> int:
    return len(stream._write_buffer)


def _taken_bytes(stream: IOStream) -> int:
    """What the client's side has acknowledged so far. That the system takes nothing more says little: it waits for much room."""
    (queued,) = _INT.unpack(fcntl.ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))
    return stream._total_write_done_index - int(queued)
