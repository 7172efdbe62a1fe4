"""A process that is not let run is told from one that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mcp_gateway.actors.starvation import CpuUse, cpu_use, is_starved
from tests.doubles.gateway_process import wait_until

SPINS = "while True: pass"
WAITS = "import signal; signal.pause()"
THREAD_SPINS = """
import signal, threading
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
signal.pause()
"""


@pytest.mark.parametrize(
    ("used_s", "elapsed_s", "wants_more", "starved"),
    [(0.0, 3.0, True, True), (1.4, 3.0, True, True), (1.5, 3.0, True, False), (3.0, 3.0, True, False), (0.0, 3.0, False, False)],
)
def test_who_wants_to_run_and_is_let_for_less_than_half_the_time_is_starved(
    used_s: float, elapsed_s: float, wants_more: bool, starved: bool
) -> None:
    before, now = CpuUse(10.0, 5.0, wants_more=True), CpuUse(10.0 + elapsed_s, 5.0 + used_s, wants_more=wants_more)
    assert is_starved(before, now) is starved


@contextmanager
def running(program: str, core: int) -> Iterator[int]:
    """The pid of a process that runs the program on one core of the machine."""
    process = subprocess.Popen([sys.executable, "-c", f"print(flush=True)\n{program}"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        os.sched_setaffinity(process.pid, {core})
        yield process.pid
    finally:
        process.kill()
        process.communicate(timeout=5)


def state_after(pid: int, seconds: float) -> bool:
    before = cpu_use(pid)
    assert before is not None
    time.sleep(seconds)  # the time that is judged
    now = cpu_use(pid)
    assert now is not None
    return is_starved(before, now)


@pytest.mark.parametrize("program", [SPINS, THREAD_SPINS])
def test_a_process_that_another_keeps_from_its_core_is_starved(program: str) -> None:
    core = min(os.sched_getaffinity(0))
    with running(program, core) as pid, running(SPINS, core):
        wait_until(lambda: (use := cpu_use(pid)) is not None and use.wants_more, 20, "it spins")
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
        assert state_after(pid, 0.5)


@pytest.mark.parametrize("way", ["waits", "stopped"])
def test_a_process_that_waits_or_is_stopped_is_not(way: str) -> None:
    with running(WAITS if way == "waits" else SPINS, min(os.sched_getaffinity(0))) as pid:
        if way == "stopped":
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: (use := cpu_use(pid)) is not None and not use.wants_more, 20, "it does not run")
        assert not state_after(pid, 0.2)


def test_a_process_that_has_ended_uses_nothing() -> None:
    with running(WAITS, min(os.sched_getaffinity(0))) as pid:
        assert cpu_use(pid) is not None
    assert cpu_use(pid) is None
