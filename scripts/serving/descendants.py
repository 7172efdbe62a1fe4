"""Processes below this one. A subreaper keeps them all, also those that leave their parent, session and environment."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable

import psutil

_logger = logging.getLogger(__name__)


def child_pids() -> list[int]:
    """Of this process's children, adopted ones included; of those that another thread has started, none."""
    pid = os.getpid()
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(each) for each in file.read().split()]


def reap_adopted(is_own: Callable[[int], bool]) -> None:
    """Let go of children that have ended and for which nobody else waits. is_own: whether somebody does."""
    for pid in child_pids():
        if not is_own(pid):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def kill_descendants(timeout_s: float = 5.0) -> None:
    """Kill and reap everything below this process, which has to be a subreaper to find all of it."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not child_pids():
            return
        time.sleep(0.005)
    _logger.error("processes were left that cannot be killed: %s", child_pids(), extra={"actor": "launcher"})
