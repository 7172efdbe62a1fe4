"""The patches of Thespian: attacked from outside on real multiprocTCPBase systems, each in a forked process of its own.

A test that fails after an update of Thespian means that a patch no longer does its work.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from thespian.actors import ActorSystem

from mcp_gateway.actors.runtime import thespian_hardening
from mcp_gateway.actors.runtime.fork_server import ServerArguments
from mcp_gateway.actors.runtime.packet_seal import MAX_PACKET_BYTES, PacketSeal
from mcp_gateway.actors.runtime.thespian_hardening import MAX_HALF_RECEIVED_SOCKETS, UnsupportedThespian, check_thespian, harden
from tests.doubles.hardened_system import (
    KEY,
    OTHER_KEY,
    Outer,
    in_a_forked_process,
    listeners,
    outer_with_child,
    running_system,
    until,
)
from tests.doubles.packets import Touch, framed
from tests.doubles.ports import free_port


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
from mcp_gateway.actors.runtime.thespian_hardening import set_environment
set_environment(log_file=pathlib.Path({str(tmp_path)!r}) / "t.log")
import thespian.system.transport as transport, os
assert transport.DEFAULT_MAX_TRANSMIT_PERIOD.total_seconds() == 30, transport.DEFAULT_MAX_TRANSMIT_PERIOD
assert os.environ["THESPLOG_FILE"].endswith("t.log")
from mcp_gateway.actors.runtime.thespian_hardening import harden
harden(bytes(32))
import logging, tempfile
from thespian.system.utilis import thesplog, thesplog_control
thesplog_control(logging.DEBUG, False, 1024 * 1024)
def nowhere():
    raise FileNotFoundError("no usable temporary directory")
tempfile.gettempdir = nowhere
thesplog("a line of %s", "Thespian")
assert "a line of Thespian" in pathlib.Path(os.environ["THESPLOG_FILE"]).read_text()
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
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)).sendall(b"12")
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


# ---- children with the code on disk


def given(parent_pid: int) -> int:
    """The descriptor of what a fork server is given."""
    descriptor = os.memfd_create("test")
    os.write(descriptor, pickle.dumps(ServerArguments(b"k" * 32, parent_pid, {"logging": 1})))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def test_a_fork_server_dies_with_its_parent_from_its_beginning_on(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[int] = []
    monkeypatch.setattr(thespian_hardening, "_die_with_parent", deaths.append)
    arguments = thespian_hardening.begin_fork_server(given(os.getppid()))
    assert (arguments.key, arguments.context) == (b"k" * 32, {"logging": 1})
    assert deaths == [signal.SIGKILL]


def test_a_fork_server_whose_parent_has_died_meanwhile_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thespian_hardening, "_die_with_parent", lambda _number: None)
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)))
    thespian_hardening.begin_fork_server(given(1 + os.getppid()))
    assert killed == [(os.getpid(), signal.SIGKILL)]
