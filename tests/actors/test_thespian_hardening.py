"""The patches of Thespian: attacked from outside on real multiprocTCPBase systems, each in a forked process of its own.

A test that fails after an update of Thespian means that a patch no longer does its work.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from thespian.actors import Actor, ActorAddress, ActorSystem, ChildActorExited

from mcp_gateway.actors import thespian_hardening as hardening
from mcp_gateway.actors.packet_seal import MAX_PACKET_BYTES, PacketSeal
from mcp_gateway.actors.thespian_hardening import (
    MAX_HALF_RECEIVED_SOCKETS,
    UnsupportedThespian,
    become_subreaper,
    check_thespian,
    child_pid_of,
    create_child,
    harden,
    send_with_result,
)
from tests.doubles.packets import Touch, framed
from tests.doubles.ports import free_port

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
QUIET = {"version": 1, "root": {"level": "CRITICAL", "handlers": []}}


# ---- actors of the systems under attack


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
            self.send(self.asker, (message, self.process.pid, child_pid_of(self)))
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
    assert answer[0] == answer[1] == answer[2]
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


def send_raw(port: int, data: bytes, answer_within_s: float = 0.2) -> bytes:
    """Send bytes to a port; what comes back until the peer closes or the time is over."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.settimeout(answer_within_s)
        answer = b""
        with contextlib.suppress(OSError):
            connection.sendall(data)
            while more := connection.recv(4096):
                answer += more
        return answer


# ---- the version


def test_the_installed_thespian_is_the_one_the_patches_are_for() -> None:
    check_thespian()


def test_another_version_of_thespian_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "4.0.2")
    with pytest.raises(UnsupportedThespian, match=r"4\.0\.2 is installed, the patches are for 4\.0\.1"):
        check_thespian()


def test_a_thespian_that_lacks_a_patched_attribute_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("thespian.system.actorManager.ActorManager.run")
    with pytest.raises(UnsupportedThespian, match=r"lacks thespian\.system\.multiprocCommon:MultiProcManager\.run"):
        check_thespian()


@in_a_forked_process
def test_hardening_twice_is_harmless_but_not_with_another_key_or_a_short_one() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        harden(b"short")
    harden(KEY)
    harden(KEY)
    with pytest.raises(RuntimeError, match="hardened already"):
        harden(OTHER_KEY)


def test_the_environment_reaches_thespian_and_is_refused_when_it_comes_too_late(tmp_path: Path) -> None:
    program = f"""
import pathlib
from mcp_gateway.actors.thespian_hardening import set_environment
set_environment(log_file=pathlib.Path({str(tmp_path)!r}) / "t.log")
import thespian.system.transport as transport, os
assert transport.DEFAULT_MAX_TRANSMIT_PERIOD.total_seconds() == 30, transport.DEFAULT_MAX_TRANSMIT_PERIOD
assert os.environ["THESPLOG_FILE"].endswith("t.log")
try:
    set_environment()
except RuntimeError:
    print("too late")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("THESP", "TMPDIR"))}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=environment)
    assert (result.stdout, result.returncode) == ("too late\n", 0), result.stderr


# ---- real systems


@in_a_forked_process
def test_the_attack_works_on_an_unhardened_system(tmp_path: Path) -> None:
    """The control: without the patches the packet below runs code, and ports listen on all interfaces."""
    with running_system() as system:
        outer_with_child(system)
        assert {address for address, _, pid in listeners() if pid != os.getpid()} == {"0.0.0.0"}
        # Forked processes hold this client's port as well, but nobody reads there, so try them all.
        for port in {port for _, port, _ in listeners()}:
            send_raw(port, framed(pickle.dumps(Touch(str(tmp_path / "executed")))))
        until((tmp_path / "executed").exists)


@in_a_forked_process
def test_an_attacker_on_the_machine_can_neither_run_code_nor_stop_the_system(tmp_path: Path) -> None:
    harden(KEY)
    with running_system() as system:
        outer, _ = outer_with_child(system)
        found = listeners()
        # 1. Every port of admin, logger, both actors and this client is on loopback.
        assert {address for address, _, _ in found} == {"127.0.0.1"}
        ports = sorted({port for _, port, _ in found})
        assert len({pid for _, _, pid in found}) >= 5
        assert len(ports) >= 5
        memory_bytes = {each.pid: each.memory_info().rss for each in psutil.Process().children(recursive=True)}
        # 2. Forged pickles, with and without something that looks like a seal, and headers meant to hurt.
        target = tmp_path / "executed"
        forged = pickle.dumps(Touch(str(target)))
        # Thespian looks at all half-received sockets in each round, so one connection at a time per port is enough.
        for port in ports:
            for packet in (
                framed(forged),
                framed(bytes(PacketSeal.OVERHEAD_BYTES) + forged),
                framed(PacketSeal(OTHER_KEY).seal(forged, port)),
                framed(PacketSeal(KEY).seal(b"x" * len(forged), port)[: PacketSeal.OVERHEAD_BYTES] + forged),
                framed(pickle.dumps("ACK")),
                b"-5>hello",
                b"99999999999999>" + b"A" * 5_000_000,
                b"%d>" % (MAX_PACKET_BYTES - 1) + b"A" * 5_000_000,
                b"9" * 5_000_000,
                b"\0\xff garbage",
            ):
                send_raw(port, packet)
        # 3. Nothing was executed, nobody died or grew, all answer.
        assert not target.exists()
        assert system.ask(outer, "counted", 5) == 0
        assert system.ask(outer, ("send with result", "nothing", 5.0), 0.2) is None
        until(lambda: system.ask(outer, "results", 5) == [None])
        assert sorted({port for _, port, _ in listeners()}) == ports
        for each in psutil.Process().children(recursive=True):
            assert each.memory_info().rss - memory_bytes[each.pid] < 4_000_000


@in_a_forked_process
def test_a_replayed_packet_is_delivered_once_and_to_nobody_else() -> None:
    harden(KEY)
    with running_system() as system:
        outer, inner_pid = outer_with_child(system)
        port = outer.addressDetails.sockname[1]
        body = pickle.dumps((system._systemBase.transport.myAddress, "count"))
        packet = framed(PacketSeal(KEY).seal(body, port))
        assert b"ACK+" not in send_raw(port, packet)
        until(lambda: system.ask(outer, "counted", 5) == 1)
        own_port = system._systemBase.transport.myAddress.addressDetails.sockname[1]
        others = {each for _, each, _ in listeners()} - {own_port}  # this client only reads while it asks
        assert len(others) >= 4
        for each in others:
            assert b"ACK+DATAERR" in send_raw(each, packet, answer_within_s=3)
        assert system.ask(outer, "counted", 5) == 1
        assert psutil.pid_exists(inner_pid)


@in_a_forked_process
def test_connections_that_never_finish_a_packet_are_bounded_and_hold_nobody_up() -> None:
    harden(KEY)
    with running_system() as system:
        outer, _ = outer_with_child(system)
        port = outer.addressDetails.sockname[1]
        with contextlib.ExitStack() as stack:
            for _ in range(MAX_HALF_RECEIVED_SOCKETS + 80):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2)).sendall(b"12")
            assert system.ask(outer, "counted", 5) == 0
            (pid,) = {pid for _, each, pid in listeners() if each == port}

            def open_count() -> int:
                connections = psutil.Process(pid).net_connections("tcp")
                return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in connections)

            until(lambda: open_count() <= MAX_HALF_RECEIVED_SOCKETS + 5)


@in_a_forked_process
def test_a_client_with_the_key_can_attach_and_one_without_cannot() -> None:
    port = free_port()

    def attach(key: bytes, results: Any) -> None:
        harden(key)
        try:
            system = ActorSystem("multiprocTCPBase", {"Admin Port": port}, transientUnique=True)
            outer = system.createActor(Outer, globalName="outer")
            results.send(system.ask(outer, "counted", 3))
        except Exception as error:
            results.send(type(error).__name__)

    def result_with(key: bytes) -> object:
        reader, writer = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=attach, args=(key, writer))
        process.start()
        result = reader.recv() if reader.poll(25) else "no result"
        process.join(5)
        return result

    owner_reader, owner_writer = multiprocessing.Pipe(duplex=False)
    done_reader, done_writer = multiprocessing.Pipe(duplex=False)

    def own() -> None:
        harden(KEY)
        with running_system(port) as system:
            system.tell(system.createActor(Outer, globalName="outer"), "count")
            owner_writer.send("up")
            done_reader.recv()

    owner = multiprocessing.get_context("fork").Process(target=own)
    owner.start()
    assert owner_reader.poll(10)
    try:
        assert result_with(KEY) == 1
        assert result_with(OTHER_KEY) in {"InvalidActorAddress", "no result"}
        assert result_with(KEY) == 1
    finally:
        done_writer.send("done")
        owner.join(15)


@in_a_forked_process
def test_the_death_of_the_logger_leaves_the_system_alive() -> None:
    harden(KEY)
    with running_system() as system:
        outer, _ = outer_with_child(system)
        descendants = [each for each in psutil.Process().children(recursive=True) if _runs(each.pid)]
        logger = next(each for each in descendants if "logger" in " ".join(each.cmdline()))
        logger.kill()
        until(lambda: not _runs(logger.pid))
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


@in_a_forked_process
def test_a_child_dies_when_its_parent_is_killed() -> None:
    harden(KEY)
    with running_system() as system:
        outer, inner_pid = outer_with_child(system)
        outer_pid = psutil.Process(inner_pid).ppid()
        os.kill(outer_pid, signal.SIGKILL)
        until(lambda: not _runs(inner_pid))
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
    until(lambda: not any(_runs(each.pid) for each in descendants))
    assert not _runs(inner_pid)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
