"""How the launcher knows the actor system's admin among its children."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FAMILY = """
import os, signal, sys, time
from setproctitle import setproctitle
from mcp_gateway.actors.runtime.thespian_hardening import ADMIN_TITLE, become_subreaper
from mcp_gateway.scripts.serving import launcher

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


_DEATH = """
import sys
from typing import Any
import psutil
from thespian.actors import ActorSystemException
from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.serving import launcher
from mcp_gateway.scripts.serving.service_manager import ServiceManager
from mcp_gateway.scripts.serving.settings_source import SettingsSource

tries = []

class Directory:
    def describe_nothing(self):
        tries.append("ended")

def fails(self):
    raise {"psutil": psutil.NoSuchProcess(7), "thespian": ActorSystemException("the admin is gone")}[sys.argv[1]]

launcher.Launcher._start = fails
code = launcher.Launcher(Settings(), "", Directory(), SettingsSource(), ServiceManager("", None)).run()
print(code, tries)
"""


@pytest.mark.parametrize("whose", ["psutil", "thespian"])
def test_a_process_that_ends_while_it_is_looked_at_is_a_death_of_the_system(whose: str) -> None:
    done = subprocess.run([sys.executable, "-c", _DEATH, whose], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "1 ['ended']"
    assert done.stderr.startswith("mcp-gateway: could not start: a process of the actor system has ended")


_SHORT_LIFE = """
import os, sys, tempfile
from pathlib import Path
from types import SimpleNamespace
import thespian.actors
from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.serving import launcher
from mcp_gateway.scripts.serving.service_manager import ServiceManager
from mcp_gateway.scripts.serving.settings_source import SettingsSource

class System:
    def __init__(self, *arguments, **options):
        pass

    def createActor(self, *arguments, **options):
        return "node"

    def tell(self, *arguments):
        pass

logger = SimpleNamespace(pid=1)
thespian.actors.ActorSystem = System
launcher._wait_for_admin = lambda: SimpleNamespace(pid=os.getpid(), children=lambda: [logger])
directory = SimpleNamespace(path=Path(tempfile.gettempdir()) / "nothing-is-kept-here")
try:
    launcher.Launcher(Settings(), "", directory, SettingsSource(), ServiceManager("", None))._start_node()
except launcher.SystemDied as error:
    print(error)
"""


def test_a_node_supervisor_that_ends_before_it_is_watched_is_a_death_of_the_system() -> None:
    """Otherwise it would be waited for as one that starts slowly."""
    done = subprocess.run([sys.executable, "-c", _SHORT_LIFE], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("the node supervisor has ended\n", 0), done.stderr


_LONG_END = """
import logging, os, sys
from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.actors.messages.node import NodeDrained
from mcp_gateway.scripts.serving import launcher
from mcp_gateway.scripts.serving.service_manager import ServiceManager
from mcp_gateway.scripts.serving.settings_source import SettingsSource

class System:
    answers = [NodeDrained()]

    def tell(self, *arguments):
        pass

    def listen(self, timeout_s):
        if self.answers:
            return self.answers.pop()
        if sys.argv[1] == "in time":
            raise launcher.SystemDied("the node supervisor has ended")

logging.basicConfig(format="%(message)s", stream=sys.stdout)
launcher.STOP_TIMEOUT_S = 0.1
settings = settings_from_mapping({"gateway": {"drain_timeout": 0.1}}, "t.toml")
ending = launcher.Launcher(settings, "", None, SettingsSource(), ServiceManager("", None))
ending._system = System()
ending._drain()
"""


@pytest.mark.parametrize(
    ("when", "told"), [("too late", "the node did not stop within 0.2 s: what is left of it is killed\n"), ("in time", "")]
)
def test_a_node_that_does_not_stop_in_time_is_told_of_in_the_log(when: str, told: str) -> None:
    """It is killed with what it has not said yet: to the other nodes of a cluster, that it goes."""
    done = subprocess.run([sys.executable, "-c", _LONG_END, when], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == (told, 0), done.stderr
