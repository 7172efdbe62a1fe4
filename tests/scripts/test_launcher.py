"""How the launcher knows the actor system's admin among its children."""

from __future__ import annotations

import subprocess
import sys

_FAMILY = """
import os, signal, sys, time
from setproctitle import setproctitle
from mcp_gateway.actors.thespian_hardening import ADMIN_TITLE, become_subreaper
from mcp_gateway.scripts import launcher

become_subreaper()
launcher.ADOPTION_TIMEOUT_S = 0.2 if sys.argv[1] == "no admin" else 5.0
reader, writer = os.pipe()
if not (between := os.fork()):
    if sys.argv[1] != "no admin" and not os.fork():
        setproctitle(ADMIN_TITLE)
        os.write(writer, b"%d" % os.getpid())
        signal.pause()
    elif sys.argv[1] == "no admin":
        signal.pause()
    time.sleep(0.3)  # it detaches slowly: until then the admin is no child of the launcher
    os._exit(0)
pids = [between]
try:
    if sys.argv[1] == "no admin":
        try:
            launcher._wait_for_admin()
        except launcher.SystemDied as error:
            print(error)
    else:
        pids = [int(os.read(reader, 20))]
        print(launcher._wait_for_admin().pid == pids[0])
finally:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
"""


def told_of(family: str) -> str:
    done = subprocess.run([sys.executable, "-c", _FAMILY, family], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def test_the_admin_is_waited_for_while_the_process_between_is_still_there() -> None:
    assert told_of("admin") == "True"


def test_another_child_is_not_taken_for_the_admin() -> None:
    assert told_of("no admin") == "the actor system's admin has ended"
