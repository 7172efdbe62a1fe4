"""Which processes of a node hang: they do not answer, although the machine lets them run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs
import psutil

MAX_MISSED: Final = 3
MAX_MISSED_STARVING: Final = 10
"""Of a process that the machine does not let run: killing it would cost more of the time that is short."""

_LEAST_SHARE: Final = 0.5
"""Of a core. A process that gets as much, and does not answer, has had its chance; ours."""


@attrs.frozen
class CpuUse:
    """What a process has used up to a moment.

    used_s:     processor time.
    wants_more: it waits for a processor, or for the disk.
    is_stopped: by a signal, all of it. What only a debugger holds is not: that lets go by itself.
    """

    at_s: float
    used_s: float
    wants_more: bool
    is_stopped: bool = False


def cpu_use(pid: int) -> CpuUse | None:
    """As of now; None where the process has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
        states = [_state(path.read_text()) for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (psutil.Error, OSError):
        return None
    return CpuUse(
        at_s=time.monotonic(),
        used_s=times.user + times.system,
        wants_more=any(state in "RD" for state in states),
        is_stopped=bool(states) and all(state == "T" for state in states),
    )


def is_starved(before: CpuUse, now: CpuUse) -> bool:
    """Whether it wanted to run and has been let for less than half the time in between."""
    return now.wants_more and now.used_s - before.used_s < _LEAST_SHARE * (now.at_s - before.at_s)


@attrs.define
class _Pulse:
    """missed_count: heartbeats in a row without an answer. used: of the processor, at the first that was missed."""

    incarnation: int
    missed_count: int = 0
    used: CpuUse | None = None


class Heartbeats:
    """Counts what children have not answered. read: gives what a process has used of the processor.

    One that is stopped need not be waited for: it hangs when the second heartbeat is due and the first has no answer.
    """

    def __init__(self, read: Callable[[int], CpuUse | None] = cpu_use) -> None:
        self._read = read
        self._pulses: dict[str, _Pulse] = {}

    def due(self, name: str, incarnation: int, pid: int | None) -> int | None:
        """It is time for the next heartbeat of a child: None to send it, or how many it has missed where it hangs."""
        pulse = self._pulses.get(name)
        if pulse is None or pulse.incarnation != incarnation:
            pulse = self._pulses[name] = _Pulse(incarnation)
        if pulse.missed_count >= MAX_MISSED and not self._is_starved(pulse, pid):
            return pulse.missed_count
        if pulse.missed_count == 1 and pid is not None:
            pulse.used = self._read(pid)
            if pulse.used is not None and pulse.used.is_stopped:
                return pulse.missed_count
        pulse.missed_count += 1
        return None

    def answered(self, name: str, incarnation: int) -> None:
        pulse = self._pulses.get(name)
        if pulse is not None and pulse.incarnation == incarnation:
            pulse.missed_count = 0

    def _is_starved(self, pulse: _Pulse, pid: int | None) -> bool:
        if pulse.missed_count >= MAX_MISSED_STARVING or pulse.used is None or pid is None:
            return False
        used = self._read(pid)
        return used is not None and is_starved(pulse.used, used)


def _state(stat: str) -> str:
    """The state of a thread. Source: proc(5), /proc/pid/stat; the name before it may contain anything."""
    return stat.rpartition(") ")[2][:1]
