"""Processes that a subreaper adopts: let go of when they have ended, killed when it ends itself."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from tests.doubles.gateway_process import is_gone, wait_until

# Starts a child of its own and an orphan that it adopts, which sleep for the seconds of its argument; then obeys its input.
SUBREAPER = """
import os, subprocess, sys
from mcp_gateway.actors.runtime.thespian_hardening import become_subreaper
from mcp_gateway.scripts.serving.descendants import child_pids, kill_descendants, reap_adopted

become_subreaper()
own = subprocess.Popen(["sleep", sys.argv[1]])
subprocess.run(["sh", "-c", f"setsid sleep {sys.argv[1]} & echo $! >&2"], check=True)
print(own.pid, flush=True)
for line in sys.stdin:
    if line == "reap\\n":
        reap_adopted(lambda pid: pid == own.pid)
        print(*child_pids(), flush=True)
    else:
        kill_descendants()
        print("left", *child_pids(), flush=True)
"""


def start(seconds: str) -> psutil.Popen:
    command = [sys.executable, "-c", SUBREAPER, seconds]
    return psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def said(process: psutil.Popen, order: str) -> str:
    process.stdin.write(f"{order}\n")
    process.stdin.flush()
    line: str = process.stdout.readline()
    return line.strip()


def test_an_adopted_child_that_has_ended_is_let_go_and_an_own_one_is_left_to_who_waits_for_it() -> None:
    with start("0") as process:
        orphan, own = process.stderr.readline().strip(), process.stdout.readline().strip()
        assert orphan != own
        wait_until(lambda: said(process, "reap") == own, 10, "only its own child is left, as a zombie")
        process.stdin.close()


def test_what_runs_below_is_killed_whoever_started_it() -> None:
    with start("600") as process:
        orphan, own = int(process.stderr.readline()), int(process.stdout.readline())
        found = [psutil.Process(pid) for pid in (orphan, own)]
        assert {str(orphan), str(own)} <= set(said(process, "reap").split()), "what runs stays"
        assert said(process, "kill") == "left"
        assert all(is_gone(each) for each in found)
        process.stdin.close()
