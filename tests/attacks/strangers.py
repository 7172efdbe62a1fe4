"""How much of the machine goes to processes that have nothing to do with this one."""

from __future__ import annotations

import time
from contextlib import suppress

import psutil


class Strangers:
    """Watched from when it is made."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._before_s = _stranger_time_s()

    def cores(self) -> float:
        """On average since then: 1.0 for one core that was busy all the time."""
        passed_s = time.monotonic() - self._began_s
        return max(0.0, _stranger_time_s() - self._before_s) / passed_s if passed_s else 0.0


def _stranger_time_s() -> float:
    """Seconds of processors so far, less those of this process and all that it has started."""
    times = psutil.cpu_times()
    own_s = 0.0
    myself = psutil.Process()
    for each in (myself, *myself.children(recursive=True)):
        with suppress(psutil.Error):
            own_s += sum(each.cpu_times()[:4])  # its own, and those of its children that have ended
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - own_s
