"""Whether a process that does not answer hangs, or wants to run and is not let: the machine may have no time for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import attrs
import psutil

_LEAST_SHARE: Final = 0.5
"""Of a core. A process that gets as much, and does not answer, has had its chance; ours."""


@attrs.frozen
class CpuUse:
    """What a process has used up to a moment. used_s: processor time; wants_more: it waits for a processor, or for the disk."""

    at_s: float
    used_s: float
    wants_more: bool


def cpu_use(pid: int) -> CpuUse | None:
    """As of now; None where the process has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
        states = [_state(path.read_text()) for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (psutil.Error, OSError):
        return None
    return CpuUse(time.monotonic(), times.user + times.system, wants_more=any(state in "RD" for state in states))


def is_starved(before: CpuUse, now: CpuUse) -> bool:
    """Whether it wanted to run and has been let for less than half the time in between."""
    return now.wants_more and now.used_s - before.used_s < _LEAST_SHARE * (now.at_s - before.at_s)


def _state(stat: str) -> str:
    """The state of a thread. Source: proc(5), /proc/pid/stat; the name before it may contain anything."""
    return stat.rpartition(") ")[2][:1]
