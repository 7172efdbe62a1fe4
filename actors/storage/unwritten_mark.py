"""A byte on disk that says that the file beside it lacks something; a full disk takes it, since its place is there already."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SUFFIX: Final = ".unwritten"
_PRIVATE: Final = 0o600
_YES, _NO = b"1", b"0"


class UnwrittenMark:
    """The mark of one file; methods raise nothing.

    Known gap: a file system that never writes in place may refuse it when it is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + SUFFIX)

    @property
    def is_set(self) -> bool:
        with suppress(OSError):
            return self._path.read_bytes() == _YES
        return False

    def set(self) -> None:
        self._write(_YES)

    def clear(self) -> None:
        """Nothing is missing; makes the place for the mark as well."""
        self._write(_NO)

    def _write(self, byte: bytes) -> None:
        with suppress(OSError):
            mark = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
            try:
                os.pwrite(mark, byte, 0)  # not fsync: a kill loses nothing of it, and a busy disk would hold up the log
            finally:
                os.close(mark)
