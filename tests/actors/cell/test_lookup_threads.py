"""The executor whose threads nobody waits for: it runs what it is given, as many at once as it may, and ends at once."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from mcp_gateway.actors.cell import lookup_threads
from mcp_gateway.actors.cell.lookup_threads import LookupThreads


def test_results_errors_and_arguments_come_through() -> None:
    async def body() -> None:
        asyncio.get_running_loop().set_default_executor(LookupThreads(2))
        assert await asyncio.gather(*(asyncio.to_thread(pow, 2, number) for number in range(50))) == [2**n for n in range(50)]
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)

    asyncio.run(body())


def test_no_more_run_at_once_than_may_and_a_call_that_is_taken_back_never_runs() -> None:
    threads, go_on = LookupThreads(3), threading.Event()
    running: list[int] = []

    def hang(number: int) -> int:
        running.append(number)
        assert go_on.wait(20)
        return number

    futures = [threads.submit(hang, number) for number in range(6)]
    deadline_s = time.monotonic() + 10
    while len(running) < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert futures[5].cancel()
    assert sorted(running) == [0, 1, 2]
    go_on.set()
    assert [future.result(10) for future in futures[:5]] == list(range(5))
    assert sorted(running) == list(range(5))


def test_threads_that_have_nothing_to_do_end_and_the_next_call_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_threads, "_IDLE_S", 0.01)
    threads = LookupThreads(4)
    for _ in range(200):
        assert [future.result(10) for future in [threads.submit(pow, 2, 2) for _ in range(20)]] == [4] * 20
        time.sleep(0.002)
    deadline_s = time.monotonic() + 10
    while threads._count:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert threads.submit(pow, 2, 3).result(10) == 8


def test_a_process_ends_while_a_lookup_hangs() -> None:
    code = """
import asyncio, time
from mcp_gateway.actors.cell.lookup_threads import LookupThreads
async def body():
    loop = asyncio.get_running_loop()
    loop.set_default_executor(LookupThreads(2))
    try:
        await asyncio.wait_for(loop.run_in_executor(None, time.sleep, 60), 0.1)
    except TimeoutError:
        print("given up")
asyncio.run(body())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "given up\n", "")
