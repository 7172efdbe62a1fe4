"""Tests that stdio servers never outlive who started them."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mcp_gateway.transports.upstream.pipes.process_guard import ProcessGuard, end_marked, is_guard, run_guard
from tests.doubles.gateway_process import is_gone, wait_until

ODD = Path(__file__).parents[3] / "doubles" / "odd_stdio_server.py"
OWNER = """
import asyncio, os, sys
from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.upstream.pipes.stdio import ChildProcess

async def main():
    for number in range(int(sys.argv[2])):
        if number == 2:
            print("waiting", flush=True)
            input()
        pipe = ChildProcess(BackendSettings(name="odd", command=(sys.executable, sys.argv[1], "stubborn")), "odd", 1_000_000)
        await pipe.open()
        await pipe.send(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', lambda: None)
        await pipe.receive()
    print("up", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def start_owner(server_count: int) -> psutil.Popen:
    """A process that starts so many servers with a child each, and waits before the third."""
    command = [sys.executable, "-c", OWNER, str(ODD), str(server_count)]
    return psutil.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def running_below(owner: psutil.Popen) -> list[psutil.Process]:
    return [process for process in owner.children(recursive=True) if not is_gone(process)]


def test_kill_9_of_the_owner_ends_its_servers_their_children_and_the_guard() -> None:
    with start_owner(2) as owner:
        assert owner.stdout.readline() == "up\n"
        everyone = running_below(owner)
        assert len(everyone) == 5
        owner.kill()
    wait_until(lambda: all(is_gone(process) for process in everyone), 10, "something is left")


def test_a_guard_that_was_killed_is_replaced_with_the_next_server_by_one_that_knows_the_earlier_ones() -> None:
    with start_owner(3) as owner:
        assert owner.stdout.readline() == "waiting\n"
        (guard,) = [process for process in running_below(owner) if "guard" in " ".join(process.cmdline())]
        guard.kill()
        wait_until(lambda: is_gone(guard), 5, "the guard lives")
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert owner.stdout.readline() == "up\n"
        everyone = running_below(owner)
        assert len(everyone) == 7
        owner.kill()
    wait_until(lambda: all(is_gone(process) for process in everyone), 10, "something is left")


def test_only_groups_that_were_not_forgotten_are_ended_and_nonsense_is_passed_over() -> None:
    servers = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) for _ in range(2)]
    try:
        kept, forgotten = (server.pid for server in servers)
        run_guard(io.BytesIO(b"+%d\n+%d\nnonsense\n\n+\n+x\n-%d\n+%d" % (kept, forgotten, forgotten, os.getpid())))
        assert servers[0].wait(5) == -signal.SIGKILL
        assert servers[1].poll() is None
    finally:
        for server in servers:
            server.kill()
            server.wait(5)


def test_what_has_left_every_group_is_ended_by_its_mark_and_nothing_else() -> None:
    def sleeper(environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "60"], start_new_session=True, env=environment)

    mine, others = ProcessGuard(), ProcessGuard()
    (name, mark), (_, other) = *mine.environment.items(), *others.environment.items()
    assert mark != other
    assert mine.environment == {name: mark}
    marked = sleeper(mine.environment)
    unmarked = [
        sleeper(each) for each in ({}, others.environment, {name: mark[:-1]}, {name: mark + "0"}, {"OTHER": f"{name}={mark}"})
    ]
    try:
        run_guard(io.BytesIO(b""), mark)
        assert marked.wait(5) == -signal.SIGKILL
        run_guard(io.BytesIO(b""))
        assert [server.poll() for server in unmarked] == [None] * 5
    finally:
        for server in (marked, *unmarked):
            server.kill()
            server.wait(5)


def test_a_guard_can_be_found_by_no_guard_of_a_gateway_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the outer one might end it before it has ended its own servers."""
    (name, mark), *_ = ProcessGuard().environment.items()
    monkeypatch.setenv(name, mark)
    guard = ProcessGuard()
    server = subprocess.Popen(["sleep", "60"], start_new_session=True, env=guard.environment)
    try:
        guard.watch(server.pid)
        end_marked(mark)
        assert server.poll() is None
        guard.stop()
        assert server.wait(20) == -signal.SIGKILL
    finally:
        server.kill()
        server.wait(5)


def test_the_guard_knows_for_which_processes_somebody_waits() -> None:
    guard = ProcessGuard()
    assert guard.environment
    guard.watch(1_000_000)
    assert guard.owns(1_000_000)
    assert guard._process is not None
    assert guard.owns(guard._process.pid)
    guard.forget(1_000_000)
    assert not guard.owns(1_000_000)
    guard.stop()


def test_a_guard_is_known_as_one_from_its_first_moment_and_nothing_else_is() -> None:
    """Whoever ends all others of a node must leave it its work, however long the machine takes to let it begin."""
    guard = ProcessGuard()
    assert guard.environment
    server = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        guard.watch(server.pid)
        assert guard._process is not None
        assert isinstance(guard._process.args, list)
        assert is_guard([str(each) for each in guard._process.args])
        process = psutil.Process(guard._process.pid)
        wait_until(lambda: "stdio-guard" in " ".join(process.cmdline()), 20, "it has its name")
        assert is_guard(process.cmdline())
    finally:
        server.kill()
        server.wait()
        guard.stop()
    assert not is_guard(["mcp-gateway: cell/0"])
    assert not is_guard([sys.executable, str(ODD), "stdio-guard"])
