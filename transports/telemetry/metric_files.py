"""The files that the processes of a node share their metrics by, with room on the disk before anything is written to them.

prometheus-client's own are sparse: a write to a page for which the disk has no room is a SIGBUS, which ends the process, and
its successor as well. Here such a process counts in memory: it serves, and what it counts from then on is not shown.
`tests/transports/telemetry/test_metric_files.py` fails when those files change.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
from typing import Any, BinaryIO, Final

import prometheus_client.values
from prometheus_client.mmap_dict import MmapedDict

_logger = logging.getLogger(__name__)

_FIRST_BYTES: Final = 65_536
_ENTRY_BYTES: Final = 32
"""What an entry takes besides its key, at most."""

_CANNOT_TELL: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class ReservedDict(MmapedDict):
    """A dict of doubles in a mapped file of which every page has its place on the disk, or else in memory."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode and not _has_room(filename):
            self._memory = _memory_file()
            filename = f"/proc/self/fd/{self._memory.fileno()}"
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call]

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + _ENTRY_BYTES > self._capacity:
            self._grow()
        super()._init_value(key)  # type: ignore[no-untyped-call]

    def _grow(self) -> None:
        if not _is_reserved(self._fname, 2 * self._capacity):
            file = _memory_file()
            file.write(self._m[:])
            file.flush()
            self._fname = f"/proc/self/fd/{file.fileno()}"
            self._f, self._m = file, mmap.mmap(file.fileno(), self._capacity)


def _has_room(filename: str) -> bool:
    """Whether the file, which is made where there is none, has its place on the disk."""
    size_bytes = os.path.getsize(filename) if os.path.exists(filename) else 0
    if _is_reserved(filename, max(_FIRST_BYTES, size_bytes)):
        return True
    if not size_bytes:  # nobody can read an empty one
        with contextlib.suppress(OSError):
            os.unlink(filename)
    return False


def _is_reserved(filename: str, size_bytes: int) -> bool:
    """Give a file its place. A file system that cannot tell is trusted, as prometheus-client does."""
    try:
        # Not for appending: where a file system has no call for it, glibc writes to the file instead.
        descriptor = os.open(filename, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _CANNOT_TELL:
            return True
        _logger.warning("%s cannot be written (%s): what this process counts is not shown", filename, error.strerror)
        return False
    return True


def _memory_file() -> BinaryIO:
    return os.fdopen(os.memfd_create("metrics"), "r+b")


def use_reserved_files() -> None:
    """From now on metrics use them; call before the first one is made."""
    values: Any = prometheus_client.values
    values.MmapedDict = ReservedDict
