"""Writes log lines to standard error without ever waiting long for who reads it.

A pipe that nobody reads takes a megabyte, then every write to it waits: an event loop that logs would serve nobody any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from typing import Final

_PATIENCE_S: Final = 0.1
"""How long a reader that is slow is waited for, once, until it has read again."""

_PIPE_BYTES: Final = 1_048_576
"""Source: pipe(7), /proc/sys/fs/pipe-max-size: what any user may ask for."""


class LineWriter:
    """Lines go out whole, or, where nobody reads, not at all.

    send:       writes as much as it can at once, as `os.write` does on a descriptor that does not block.
    descriptor: where it writes to.
    """

    def __init__(self, send: Callable[[bytes], int], descriptor: int) -> None:
        self._send = send
        self._descriptor = descriptor
        self._rest = b""  # of a line that went out in part
        self._is_stuck = False
        self.left_out = 0

    def write(self, line: bytes) -> bool:
        """Whether the line is on its way."""
        if self._rest and not self._is_written(self._rest):
            self.left_out += 1
            return False
        if self._is_written(line):
            return True
        if self._rest:  # it has begun: the rest goes before the next one
            return True
        self.left_out += 1
        return False

    def take_left_out(self) -> int:
        """How many lines were left out since this was asked, where there is room now to say so."""
        if not self.left_out or self._rest or not _is_ready(self._descriptor, 0.0):
            return 0
        count, self.left_out = self.left_out, 0
        return count

    def _is_written(self, data: bytes) -> bool:
        while True:
            try:
                count = self._send(data)
            except BlockingIOError:
                if self._is_stuck or not _is_ready(self._descriptor, _PATIENCE_S):
                    self._is_stuck = True
                    return False
                continue
            except OSError:  # nobody will ever read it
                self._rest = b""
                return True
            self._is_stuck = False
            data = self._rest = data[count:]
            if not data:
                return True


class LineHandler(logging.Handler):
    """Logs to a `LineWriter`, and says so when lines were left out."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if left_out := self._writer.take_left_out():
                text = f"{left_out} lines before this one were left out: nobody read them"
                said = logging.LogRecord("log", logging.WARNING, "", 0, text, None, None)
                self._writer.write(self.format(said).encode(errors="replace") + b"\n")
            self._writer.write(self.format(record).encode(errors="replace") + b"\n")
        except Exception:
            self.handleError(record)


def standard_error_handler() -> logging.Handler:
    """A handler that never holds its process up, whatever standard error is."""
    with contextlib.suppress(OSError, ValueError):
        writer = _own_writer(sys.stderr.fileno())
        if writer is not None:
            return LineHandler(writer)
    return logging.StreamHandler(sys.stderr)  # a file takes what it is given


def _own_writer(shared: int) -> LineWriter | None:
    """For the same pipe, terminal or socket, but without waiting; None for a file.

    Whether standard error itself waits is not ours to change: the shell that started this has it as well.

    Raises: OSError.
    """
    mode = os.fstat(shared).st_mode
    if stat.S_ISSOCK(mode):
        journal = socket.socket(fileno=os.dup(shared))
        return LineWriter(lambda data: journal.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), journal.fileno())
    if not stat.S_ISFIFO(mode) and not os.isatty(shared):
        return None
    try:
        own = os.open(f"/proc/self/fd/{shared}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except PermissionError:  # of another user, who has started this
        return LineWriter(functools.partial(_write_if_ready, shared), shared)
    if stat.S_ISFIFO(mode):
        with contextlib.suppress(OSError):
            fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return LineWriter(functools.partial(os.write, own), own)


def _write_if_ready(descriptor: int, data: bytes) -> int:
    """As `os.write` without waiting, on a descriptor that would wait. Only another process that writes meanwhile can make it.

    Source: poll(2), pipe(7): a pipe that is ready takes PIPE_BUF bytes.

    Raises: BlockingIOError.
    """
    if not _is_ready(descriptor, 0.0):
        raise BlockingIOError
    return os.write(descriptor, data[: select.PIPE_BUF])


def _is_ready(descriptor: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(wait_s * 1000))
