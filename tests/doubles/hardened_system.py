"""Hardened multiprocess systems for tests, each in a forked process of its own that may be patched and leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psutil
from thespian.actors import Actor, ActorAddress, ActorSystem, ChildActorExited

from mcp_gateway.actors.runtime.thespian_hardening import become_subreaper, create_child, send_with_result
from tests.doubles.ports import free_port

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
QUIET: dict[str, Any] = {"version": 1, "root": {"level": "CRITICAL", "handlers": []}}


class Inner(Actor):
    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if message == "segfault":
            ctypes.string_at(0)
        elif message == "who":
            self.send(sender, os.getpid())


class Outer(Actor):
    """Has one child; counts; reports what it learns of the child."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.child_exits = 0
        self.asker: ActorAddress | None = None
        self.results: list[str | None] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, ChildActorExited):
            self.child_exits += 1
        elif message == "create":
            self.child, self.process = create_child(self, Inner)
            self.asker = sender
            self.send(self.child, "who")
        elif isinstance(message, int):
            assert self.process is not None
            self.send(self.asker, (message, self.process.pid))
        elif message == "count":
            self.count += 1
        elif message == "counted":
            self.send(sender, self.count)
        elif message == "segfault child":
            self.send(self.child, "segfault")
        elif message == "child exits":
            assert self.process is not None
            self.send(sender, (self.child_exits, self.process.end_text()))
        elif message == "logging":
            self.send(sender, (type(logging.root).__name__, type(logging.getLogger("anew").parent).__name__))
        elif isinstance(message, tuple) and message[0] == "send with result":
            send_with_result(self, self.child, message[1], self.results.append, timeout_s=message[2])
        elif message == "results":
            self.send(sender, list(self.results))


# ---- running


def in_a_forked_process(body: Callable[..., None]) -> Callable[..., None]:
    """Decorate a test so that it runs in a forked child, which may be patched, and leaves no process behind."""

    @functools.wraps(body)
    def test(**fixtures: Any) -> None:
        reader, writer = multiprocessing.Pipe(duplex=False)

        def run() -> None:
            problem = None
            become_subreaper()
            try:
                body(**fixtures)
            except BaseException:
                problem = traceback.format_exc()
            left = psutil.Process().children(recursive=True)
            _, left = psutil.wait_procs(left, timeout=5)
            for each in left:
                each.kill()
            psutil.wait_procs(left, timeout=5)
            if left and problem is None:
                problem = f"left behind: {left}"
            writer.send(problem)

        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        problem = reader.recv() if reader.poll(60) else "no result within 60 s"
        process.join(10)
        if process.is_alive():
            process.kill()
        assert problem is None, problem

    return test


@contextlib.contextmanager
def running_system(port: int | None = None) -> Iterator[ActorSystem]:
    system = ActorSystem("multiprocTCPBase", {"Admin Port": port or free_port()}, logDefs=QUIET, transientUnique=True)
    try:
        yield system
    finally:
        system.shutdown()


def outer_with_child(system: ActorSystem) -> tuple[ActorAddress, int]:
    """An Outer that has its Inner, and the pid of the Inner."""
    outer = system.createActor(Outer)
    answer = system.ask(outer, "create", 10)
    assert answer[0] == answer[1]
    return outer, answer[0]


def until(holds: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, "did not come true in time"
        time.sleep(0.01)


def listeners() -> list[tuple[str, int, int]]:
    """(address, port, pid) of every listening socket of this process and its descendants."""
    me = psutil.Process()
    return sorted(
        {
            (each.laddr.ip, each.laddr.port, process.pid)
            for process in [me, *me.children(recursive=True)]
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        }
    )


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
