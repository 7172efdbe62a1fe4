"""A child that hangs is found out, and told from one that the machine does not let run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mcp_gateway.actors.node.heartbeats import MAX_MISSED, MAX_MISSED_STARVING, CpuUse, Heartbeats, cpu_use, is_starved
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


# ---- children


class Machine:
    """What one process gets. share: of a core, in each second; wants_more: it could use more; is_stopped: by a signal."""

    def __init__(self, share: float, *, wants_more: bool, is_stopped: bool = False) -> None:
        self.share, self.wants_more, self.is_stopped = share, wants_more, is_stopped
        self.now_s = self.used_s = 0.0

    def second(self) -> None:
        self.now_s += 1
        self.used_s += self.share

    def read(self, pid: int) -> CpuUse:
        assert pid == 7
        return CpuUse(self.now_s, self.used_s, self.wants_more, self.is_stopped)


def missed(machine: Machine, *, answers_at: int = 0, seconds: int = 30) -> int | None:
    """How many heartbeats in a row a child had missed when it was found to hang; None where it was not."""
    heartbeats = Heartbeats(machine.read)
    for second in range(seconds):
        if second and second == answers_at:
            heartbeats.answered("cell-0", 1)
        count = heartbeats.due("cell-0", 1, 7)
        if count is not None:
            return count
        machine.second()
    return None


@pytest.mark.parametrize(("share", "wants_more"), [(0.0, False), (1.0, True), (0.6, True)])
def test_a_child_that_could_answer_and_does_not_hangs_after_three(share: float, wants_more: bool) -> None:
    assert missed(Machine(share, wants_more=wants_more)) == MAX_MISSED == 3


def test_a_child_that_is_not_let_run_has_longer_but_not_for_ever() -> None:
    assert missed(Machine(0.1, wants_more=True)) == MAX_MISSED_STARVING == 10


def test_a_child_that_is_stopped_hangs_when_the_second_heartbeat_is_due() -> None:
    """The issue: SIGSTOP of a cell is found within two heartbeats."""
    assert missed(Machine(0.0, wants_more=False, is_stopped=True)) == 1
    assert missed(Machine(0.0, wants_more=False, is_stopped=True), answers_at=1, seconds=2) is None


def test_an_answer_ends_the_count() -> None:
    assert missed(Machine(0.0, wants_more=False), answers_at=3, seconds=6) is None
    assert missed(Machine(0.0, wants_more=False), answers_at=3, seconds=7) == 3


def test_a_new_incarnation_begins_anew_and_answers_of_the_old_one_do_not_count() -> None:
    heartbeats = Heartbeats(Machine(0.0, wants_more=False).read)
    assert [heartbeats.due("cell-0", 1, 7) for _ in range(4)] == [None, None, None, 3]
    assert [heartbeats.due("cell-0", 2, 7) for _ in range(3)] == [None, None, None]
    heartbeats.answered("cell-0", 1)
    heartbeats.answered("cell-1", 2)
    assert heartbeats.due("cell-0", 2, 7) == 3


# ---- processes


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
        use = cpu_use(pid)
        assert use is not None
        assert use.is_stopped is (way == "stopped")


def test_a_process_of_which_one_thread_runs_is_not_stopped() -> None:
    with running(THREAD_SPINS, min(os.sched_getaffinity(0))) as pid:
        use = cpu_use(pid)
        assert use is not None
        assert not use.is_stopped


def test_a_process_that_has_ended_uses_nothing() -> None:
    with running(WAITS, min(os.sched_getaffinity(0))) as pid:
        assert cpu_use(pid) is not None
    assert cpu_use(pid) is None
