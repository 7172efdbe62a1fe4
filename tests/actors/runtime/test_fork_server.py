"""A server that forks for another process: what that one hears of its processes is what a parent would."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_gateway.actors.runtime.fork_server import ForkServer, ForkServerContext, ForkServerGone, ServerArguments

ENTRY = """
import sys
from mcp_gateway.actors.runtime.fork_server import serve_forks, take_arguments
arguments = take_arguments(int(sys.argv[1]))
assert arguments.key == b"k" * 32
exec(arguments.context)
serve_forks(int(sys.argv[2]))
"""

MORTAL = """
import ctypes, os
prctl = ctypes.CDLL(None).prctl
PR_SET_PDEATHSIG, SIGKILL, PR_SET_NAME = 1, 9, 15
os.register_at_fork(after_in_child=lambda: prctl(PR_SET_PDEATHSIG, SIGKILL) or prctl(PR_SET_NAME, b"mortal"))
"""
"""So that what is forked dies with the server, as processes of the gateway do."""

FULL_AT_THE_SECOND = """
import errno, os
fork, forks = os.fork, []
def fork_unless_full():
    forks.append(1)
    if len(forks) == 2:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = fork_unless_full
"""

StartServer = Callable[..., ForkServer]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartServer]:
    """Starts a server that has executed a text."""
    (tmp_path / "forking_entry.py").write_text(ENTRY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    servers = []

    def start(context: str = "") -> ForkServer:
        servers.append(ForkServer("forking_entry", ServerArguments(b"k" * 32, os.getpid(), context)))
        return servers[-1]

    yield start
    for server in servers:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in process_of(server).children(recursive=True):
                child.kill()
        server.kill()


@pytest.fixture
def ready(start: StartServer) -> ForkServer:
    server = start()
    until(server.is_ready)
    return server


def process_of(server: ForkServer) -> psutil.Process:
    return psutil.Process(server.process.pid)


def until(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_the_end_of_a_process_is_told_with_its_exit_code_and_by_a_signal(ready: ForkServer) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _frame: heard.append(number))
    try:
        process = ForkServerContext(ready).Process(target=os._exit, args=(7,))
        process.start()
        assert process.pid not in (None, os.getpid())
        until(lambda: heard)
        until(lambda: not process.is_alive())
        assert process.exitcode == 7
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_process_is_forked_from_the_server_and_killed_by_who_asked_for_it(ready: ForkServer) -> None:
    process = ForkServerContext(ready).Process(target=time.sleep, args=(600,))
    process.start()
    assert process.is_alive()
    assert process.exitcode is None
    assert psutil.Process(process.pid).ppid() == process_of(ready).pid
    process.kill()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    process.kill()  # whoever has that number by now is not meant


def test_a_server_that_has_died_is_started_again_and_takes_what_it_knew_of_ends_along(
    ready: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_gateway.actors.runtime.fork_server._LOADING_S", 30.0)
    context = ForkServerContext(ready)
    lost = context.Process(target=time.sleep, args=(600,))
    lost.start()
    old = process_of(ready).pid
    os.kill(old, signal.SIGSTOP)
    lost.kill()
    os.kill(old, signal.SIGKILL)
    lost.join(30)
    assert lost.exitcode == -signal.SIGKILL
    until(lambda: ready.process.poll() is not None)
    process = context.Process(target=os._exit, args=(3,))
    process.start()
    assert process_of(ready).pid != old
    process.join(30)
    assert process.exitcode == 3


def test_processes_have_ended_for_who_hears_that_their_server_has(start: StartServer) -> None:
    server = start(MORTAL)
    until(server.is_ready)
    process = ForkServerContext(server).Process(target=time.sleep, args=(600,))
    process.start()
    until(lambda: psutil.Process(process.pid).name() == "mortal")
    server.kill()
    assert not process.is_alive()  # the only time when somebody looks: its own end is told by no signal
    assert process.exitcode == -signal.SIGKILL


def test_a_server_that_is_closed_ends_with_the_last_of_its_processes(ready: ForkServer) -> None:
    process = ForkServerContext(ready).Process(target=time.sleep, args=(600,))
    process.start()
    ready.close()
    with pytest.raises(subprocess.TimeoutExpired):
        ready.process.wait(0.2)
    assert not ready.has_ended()
    process.kill()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    until(ready.has_ended)
    assert ready.process.returncode == 0


def test_a_server_that_does_not_answer_is_ended(ready: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_gateway.actors.runtime.fork_server._START_S", 0.2)
    process_of(ready).suspend()
    with pytest.raises(ForkServerGone, match="has not answered within"):
        ForkServerContext(ready).Process(target=os._exit, args=(0,)).start()
    assert ready.process.poll() == -signal.SIGKILL


def test_those_that_run_stay_when_no_more_can_be_started(start: StartServer) -> None:
    server = start(FULL_AT_THE_SECOND)
    until(server.is_ready)
    first, second, third = (ForkServerContext(server).Process(target=time.sleep, args=(600,)) for _ in range(3))
    first.start()
    with pytest.raises(ForkServerGone, match="cannot start a process: Resource temporarily unavailable"):
        second.start()
    third.start()
    assert first.is_alive()
    assert third.is_alive()


def test_a_server_that_loads_for_long_is_left_to_it_and_forks_once_it_has(
    start: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_gateway.actors.runtime.fork_server._LOADING_S", 0.01)
    server = start(f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)")
    loading = server.process.pid
    for _ in range(3):
        with pytest.raises(ForkServerGone, match="has not loaded the code yet"):
            ForkServerContext(server).Process(target=os._exit, args=(0,)).start()
    (tmp_path / "go").touch()
    until(server.is_ready)
    process = ForkServerContext(server).Process(target=os._exit, args=(3,))
    process.start()
    process.join(30)
    assert (process.exitcode, server.process.pid) == (3, loading)
    assert process_of(server).children() == []  # nothing came of what was asked for before


def test_code_that_cannot_be_loaded_is_told(start: StartServer) -> None:
    server = start("raise ImportError('told to fail')")

    def has_failed() -> bool:
        try:
            assert not server.is_ready()
        except ForkServerGone:
            return True
        return False

    until(has_failed)


def test_the_key_is_in_no_argument_and_no_variable_of_the_server(ready: ForkServer) -> None:
    process = process_of(ready)
    assert "kkkk" not in " ".join([*process.cmdline(), *process.environ().values()])
    assert "kkkk" not in repr(ready._arguments)


def test_elsewhere_it_is_the_start_method_that_its_processes_have(ready: ForkServer) -> None:
    assert pickle.loads(pickle.dumps(ForkServerContext(ready))).get_start_method() == "fork"
