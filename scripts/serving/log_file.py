"""The log in the state directory, which `mcp-gateway logs` reads: bounded, and written by every process of a node at once."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path

from mcp_gateway.transports.telemetry.kept_log import FILE_NAME, OLDER_NAME


class LogFile(logging.Handler):
    """Appends lines; whoever finds the part full puts it away, and the others go over to the next one with their next line.

    Each process writes by a descriptor of its own, or one that it has from its parent: what is appended by one write stays whole.
    A full disk takes no lines, and nobody is told here: standard error has them as well.

    most_bytes: of both parts, but for what processes write while another one puts a part away.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        super().__init__()
        self._folder = folder
        self._part_bytes = most_bytes // 2
        self._descriptor = -1

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._append(self.format(record).encode(errors="replace") + b"\n")
        except OSError:
            pass
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        self._let_go()
        super().close()

    def _append(self, line: bytes) -> None:
        """Raises: OSError"""
        if self._descriptor < 0:
            self._descriptor = self._open()
        found = os.fstat(self._descriptor)
        if found.st_nlink == 0 or (found.st_size and found.st_size + len(line) > self._part_bytes):
            self._go_over(found)
        os.write(self._descriptor, line)

    def _go_over(self, full: os.stat_result) -> None:
        """To the newest part, after putting away the one that is full, unless another process does so just now, or has."""
        lock = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                newest = os.stat(self._folder / FILE_NAME)
                if (newest.st_dev, newest.st_ino) == (full.st_dev, full.st_ino):
                    os.replace(self._folder / FILE_NAME, self._folder / OLDER_NAME)
            self._let_go()
            self._descriptor = self._open()
        except BlockingIOError:
            pass  # a little more for the full one
        finally:
            os.close(lock)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._folder / FILE_NAME, flags, 0o600)

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
