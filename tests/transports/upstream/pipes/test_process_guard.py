"""Tests that stdio servers never outlive who started them."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from mcp_gateway.transports.upstream.pipes.process_guard import run_guard
from tests.doubles.gateway_process import is_gone, wait_until

ODD = Path(__file__).parents[3] / "doubles" / "odd_stdio_server.py"
OWNER = """
import asyncio, os, sys
from mcp_gateway.config.settings import BackendSettings
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
