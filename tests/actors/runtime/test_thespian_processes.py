"""How the processes of actors live and die on a hardened multiprocess base."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
from typing import Any

import psutil
from thespian.actors import Actor, ActorAddress, ActorSystem, ChildActorExited

from mcp_gateway.actors.runtime import thespian_hardening as hardening
from mcp_gateway.actors.runtime.thespian_hardening import create_child, harden
from tests.doubles.hardened_system import (
    KEY,
    QUIET,
    Inner,
    in_a_forked_process,
    listeners,
    outer_with_child,
    running_system,
    runs,
    until,
)
from tests.doubles.ports import free_port


@in_a_forked_process
def test_the_death_of_the_logger_leaves_the_system_alive() -> None:
    harden(KEY)
    with running_system() as system:
        outer, _ = outer_with_child(system)
        descendants = [each for each in psutil.Process().children(recursive=True) if runs(each.pid)]
        logger = next(each for each in descendants if "logger" in " ".join(each.cmdline()))
        logger.kill()
        until(lambda: not runs(logger.pid))
        assert system.ask(outer, "counted", 5) == 0
        other, _ = outer_with_child(system)
        assert system.ask(other, "counted", 5) == 0


@in_a_forked_process
def test_a_real_segfault_ends_the_actor_and_its_parent_learns_of_it() -> None:
    faulthandler.disable()  # pytest's would hide Thespian's handlers
    harden(KEY)
    with running_system() as system:
        outer, inner_pid = outer_with_child(system)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        system.tell(outer, "segfault child")
        until(lambda: system.ask(outer, "child exits", 5) == (1, "killed by SIGSEGV"))
        assert not psutil.pid_exists(inner_pid)


class Bereaved(Actor):
    """Has two children. While it hears of the end of one, the other dies."""

    def __init__(self) -> None:
        super().__init__()
        self.pids: list[int] = []
        self.exits: list[str] = []

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if message == "create":
            self.asker = sender
            for _ in range(2):
                self.send(create_child(self, Inner)[0], "who")
        elif isinstance(message, int):
            self.pids.append(message)
            if len(self.pids) == 2:
                self.send(self.asker, self.pids[0])
        elif message == "exits":
            self.send(sender, len(set(self.exits)))
        elif isinstance(message, ChildActorExited):
            self.exits.append(str(message.childAddress))
            if len(self.exits) == 1:
                os.kill(self.pids[1], signal.SIGKILL)
                os.waitid(os.P_PID, self.pids[1], os.WEXITED | os.WNOWAIT)


@in_a_forked_process
def test_of_two_children_that_die_at_once_both_ends_are_told() -> None:
    harden(KEY)
    with running_system() as system:
        parent = system.createActor(Bereaved)
        os.kill(system.ask(parent, "create", 10), signal.SIGKILL)
        until(lambda: system.ask(parent, "exits", 5) == 2)


@in_a_forked_process
def test_a_child_dies_when_its_parent_is_killed() -> None:
    harden(KEY)
    with running_system() as system:
        outer, inner_pid = outer_with_child(system)
        outer_pid = psutil.Process(inner_pid).ppid()
        os.kill(outer_pid, signal.SIGKILL)
        until(lambda: not runs(inner_pid))
        assert system.ask(outer, "counted", 0.5) is None


@in_a_forked_process
def test_no_logger_and_no_actor_outlives_the_admin_and_its_port_is_free_again() -> None:
    harden(KEY)
    port = free_port()
    system = ActorSystem("multiprocTCPBase", {"Admin Port": port}, logDefs=QUIET, transientUnique=True)
    _, inner_pid = outer_with_child(system)
    descendants = psutil.Process().children(recursive=True)
    (admin_pid,) = {pid for _, each, pid in listeners() if each == port} & {each.ppid() for each in descendants}
    os.kill(admin_pid, signal.SIGKILL)
    until(lambda: not any(runs(each.pid) for each in descendants))
    assert not runs(inner_pid)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


@in_a_forked_process
def test_a_child_whose_parent_died_before_it_was_prepared_dies_too() -> None:
    """PR_SET_PDEATHSIG comes too late when the parent is gone already: the child must see that itself."""
    reader, writer = os.pipe()

    def middle() -> None:
        def orphan() -> None:
            until(lambda: os.getppid() != multiprocessing.parent_process().pid)  # type: ignore[union-attr]
            os.write(writer, b"orphaned ")
            hardening.prepare_process()
            os.write(writer, b"alive")

        multiprocessing.get_context("fork").Process(target=orphan, daemon=False).start()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=middle)
    process.start()
    process.join(5)
    os.close(writer)
    text = b""
    while more := os.read(reader, 100):
        text += more
    assert text == b"orphaned "


@in_a_forked_process
def test_actors_log_through_the_handlers_they_inherit() -> None:
    harden(KEY)
    with running_system() as system:
        outer, _ = outer_with_child(system)
        assert system.ask(outer, "logging", 5) == ("RootLogger", "RootLogger")


@in_a_forked_process
def test_the_sender_learns_what_became_of_a_message() -> None:
    harden(KEY)
    with running_system() as system:
        outer, inner_pid = outer_with_child(system)
        system.tell(outer, ("send with result", "nothing", 5.0))
        until(lambda: system.ask(outer, "results", 5) == [None])
        os.kill(inner_pid, signal.SIGSTOP)
        system.tell(outer, ("send with result", "nothing", 0.3))
        until(lambda: system.ask(outer, "results", 5) in ([None, "failed"], [None, "expired"]))
        os.kill(inner_pid, signal.SIGKILL)
        until(lambda: system.ask(outer, "child exits", 5)[0] >= 1)
        system.tell(outer, ("send with result", "nothing", 5.0))
        until(lambda: system.ask(outer, "results", 5)[2:] == ["dead target"])
