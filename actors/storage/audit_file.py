"""The audit trail on disk: one chain of lines in `state_dir`, to which all cells of a node append."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from .audit_chain import LONGEST_LINE_BYTES, ChainEnd, chained, end_at

FILE_NAME: Final = "audit.jsonl"
"""What is being written; older parts of the trail are `audit-NUMBER.jsonl`, by the number of their first entry."""

_LOCK_NAME: Final = "audit.lock"
_PRIVATE: Final = 0o600
_LARGEST_PART_BYTES: Final = 67_108_864
_LONGEST_PART_S: Final = 86_400.0
"""Retention drops whole parts: none holds much more than a day."""


class AuditFile:
    """Appends entries under a lock that the kernel takes from whoever dies; every process finds the end of the chain by itself.

    retention_s, max_bytes: parts that nothing was added to for so long are dropped, and the oldest while there is more than that.
    say:                    told in one line what was found amiss.
    """

    def __init__(self, folder: Path, retention_s: float, max_bytes: int, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._retention_s = retention_s
        self._max_bytes = max_bytes
        self._say = say
        self._known: tuple[int, int, ChainEnd] | None = None  # (inode, size, end) as we left it

    def append(self, entries: Sequence[Mapping[str, Any]], now_s: float) -> int:
        """Add all of them, or none; how many were left out, because JSON has no form for what they say. now_s: the time of day.

        Raises: OSError; then nothing was added.
        """
        left_out = 0
        with locked(self._folder, fcntl.LOCK_EX):
            self._rotate_if_due(now_s)
            with self._opened() as file:
                end = self._end(file)
                lines = []
                for fields in entries:
                    try:
                        line, end = chained(end, fields)
                    except (TypeError, ValueError, RecursionError):
                        left_out += 1
                        continue
                    lines.append(line)
                size = _append_whole(file, b"".join(lines))
                self._known = (os.fstat(file).st_ino, size, end)
        return left_out

    @contextmanager
    def _opened(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._folder / FILE_NAME, flags, _PRIVATE)
        try:
            yield file
        finally:
            os.close(file)

    def _end(self, file: int) -> ChainEnd:
        """Where the chain goes on. A line that its writer did not finish, because it died or the disk was full, was never one."""
        found = os.fstat(file)
        if self._known is not None and self._known[:2] == (found.st_ino, found.st_size):
            return self._known[2]
        last_line, end_bytes = _last_line(file, found.st_size)
        if end_bytes < found.st_size:
            os.ftruncate(file, end_bytes)
            self._say(f"{FILE_NAME}: a line that was not finished was cut off, {found.st_size - end_bytes} bytes")
        if last_line is not None:
            return end_at(last_line)
        parts = older_parts(self._folder)
        if not parts:
            return ChainEnd()
        with parts[-1].open("rb") as part:
            last_line, _ = _last_line(part.fileno(), parts[-1].stat().st_size)
        return ChainEnd() if last_line is None else end_at(last_line)

    def _rotate_if_due(self, now_s: float) -> None:
        path = self._folder / FILE_NAME
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            began_s, number = _beginning(path)
            older = self._folder / f"audit-{number:015d}.jsonl"
            if size and (size >= _LARGEST_PART_BYTES or now_s - began_s > _LONGEST_PART_S) and not older.exists():
                path.rename(older)
                self._known = None
                self._drop_old(now_s)

    def _drop_old(self, now_s: float) -> None:
        parts = [(part, part.stat()) for part in older_parts(self._folder)]
        total = sum(found.st_size for _, found in parts)
        for part, found in parts:
            if total <= self._max_bytes and now_s - found.st_mtime <= self._retention_s:
                break
            part.unlink()
            total -= found.st_size


def older_parts(folder: Path) -> list[Path]:
    """The parts of the trail that nobody adds to any more, oldest first."""
    return sorted(folder.glob("audit-*.jsonl"))


@contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """how: LOCK_EX to add to the trail, LOCK_SH to find its parts in one state.

    Raises: OSError.
    """
    lock = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


def opened_parts(folder: Path) -> list[tuple[Path, BinaryIO, int]]:
    """(path, file, its size now) of the whole trail, oldest first; whatever happens to it meanwhile, these can be read.

    Raises: OSError.
    """
    with locked(folder, fcntl.LOCK_SH):
        paths = [*older_parts(folder), folder / FILE_NAME]
        return [(path, path.open("rb"), path.stat().st_size) for path in paths if path.exists()]


def _append_whole(file: int, data: bytes) -> int:
    """The size afterwards. Raises: OSError; the file is as it was."""
    size = os.fstat(file).st_size
    written = 0
    try:
        while written < len(data):
            written += os.write(file, data[written:])
    except OSError:
        os.ftruncate(file, size)
        raise
    return size + len(data)


def _last_line(file: int, size: int) -> tuple[bytes | None, int]:
    """(the last whole line, None where there is none; where it ends, its newline included)."""
    start = max(0, size - 2 * LONGEST_LINE_BYTES)
    tail = os.pread(file, size - start, start)
    whole = tail[: tail.rfind(b"\n") + 1]
    if not whole:  # either its first line was not finished, or what is there is no trail: then the chain shows it
        return (tail, size) if start else (None, 0)
    return whole[:-1].rpartition(b"\n")[2], start + len(whole)


def _beginning(path: Path) -> tuple[float, int]:
    """(when the first entry was made, its number); now and 0 where there is none that can be read."""
    with path.open("rb") as file:
        line = file.readline(LONGEST_LINE_BYTES)
    try:
        entry = msgspec.json.decode(line, type=dict[str, Any])
        return float(entry["time_ms"]) / 1000, int(entry["number"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return time.time(), 0
