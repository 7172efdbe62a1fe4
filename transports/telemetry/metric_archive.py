"""Puts what ended processes have counted into one file, so that scrapes do not become slower with every restart.

The files are those of prometheus-client's multiprocess mode;
`tests/transports/telemetry/test_metric_archive.py` fails when they change.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

_logger = logging.getLogger(__name__)

_SUMMED = ("counter", "histogram")
_ARCHIVE_PID = 0
"""Of no process: a reader takes the archive for one more process that has counted."""
_SMALLEST_BYTES = 1_048_576


def archive_process(pid: int, directory: Path) -> None:
    """Add the counters and histograms of a process that has ended to the archive; drop its gauges, which tell of nothing that is.

    The archive is replaced as a whole. A scrape at that very moment may see a process twice or be told to try again, never less.
    Where the disk is full, the files of the process stay as they are, and go on being read.
    """
    for kind in _SUMMED:
        dead = directory / f"{kind}_{pid}.db"
        if dead.exists():
            try:
                _add(directory / f"{kind}_{_ARCHIVE_PID}.db", dead)
            except OSError as error:
                _logger.warning("%s cannot be archived: %s", dead, error.strerror)
    for gauge in directory.glob(f"gauge_*_{pid}.db"):
        gauge.unlink(missing_ok=True)


def archive_all(directory: Path) -> None:
    """The same for every process that has ever counted: all of them have ended."""
    pids = {int(path.stem.rpartition("_")[2]) for path in directory.glob("*_*.db")}
    for pid in sorted(pids - {_ARCHIVE_PID}):
        archive_process(pid, directory)


def _add(archive: Path, dead: Path) -> None:
    totals: dict[str, float] = {}
    used_bytes = 0
    for path in (archive, dead):
        if path.exists() and path.stat().st_size:
            used_bytes += _used_bytes(path)
            for key, value, _, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
                totals[key] = totals.get(key, 0.0) + value
    fresh = archive.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    if not totals:
        dead.unlink()
        return
    # A write to a mapped page for which the disk has no room would be a SIGBUS.
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(_SMALLEST_BYTES, used_bytes))
    written = MmapedDict(str(fresh))  # type: ignore[no-untyped-call]
    for key, value in totals.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    os.replace(fresh, archive)
    dead.unlink()


def _used_bytes(path: Path) -> int:
    """How much of a file is filled, as its first four bytes say."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(4), sys.byteorder)
