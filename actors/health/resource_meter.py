"""Reads what this process uses of the machine."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from .resource_rules import ResourceUse

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class ResourceMeter:
    """Looks at this process; each look tells of the time since the one before."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._limit_bytes = _memory_limit()

    def read(self, lag_s: float) -> ResourceUse:
        machine = psutil.virtual_memory()
        return ResourceUse(
            memory_bytes=self._process.memory_info().rss,
            limit_bytes=min(self._limit_bytes, machine.total),
            available_bytes=machine.available,
            total_bytes=machine.total,
            cpu_share=self._process.cpu_percent() / 100.0,
            lag_s=lag_s,
        )


def _memory_limit() -> int:
    """The limit of this process's control group (version 2, as inside a container), or one that no machine reaches."""
    with contextlib.suppress(OSError, ValueError):
        return int(_CGROUP_LIMIT.read_text())
    return 1 << 62
