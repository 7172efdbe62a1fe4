"""The supervisor on both bases: in-process, where all is synchronous, and with real processes that are really killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
import psutil
import pytest
from thespian.actors import ActorAddress, ActorExitRequest, ActorSystem

from mcp_gateway.actors.messages.lifecycle import CrashRequested, StopRequested, Wiring
from mcp_gateway.actors.messages.supervision import (
    ChildRestarted,
    ChildRestartRefused,
    RestartChildRequested,
    SnapshotRequested,
    SnapshotTaken,
)
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.actors.runtime.in_process_system import InProcessSystem
from mcp_gateway.actors.runtime.thespian_hardening import become_subreaper
from mcp_gateway.actors.supervision.restart_plan import ChildSpec, Restart, RestartIntensity, Strategy
from mcp_gateway.actors.supervision.supervisor import Supervisor
from tests.doubles.ports import free_port

JOURNAL: list[str] = []  # what in-process actors did, in order


# ---- actors under test (module level, because processes import them by name)


@attrs.frozen(kw_only=True)
class Do:
    """Test -> actor: do `what`, and say what came of it."""

    what: str
    argument: Any = None


@attrs.frozen(kw_only=True)
class Done:
    what: str
    result: Any = None


class Worker(GatewayActor):
    """Journals its life; does as told."""

    def on_wired(self) -> None:
        JOURNAL.append(f"{self.name}#{self.incarnation} wired")
        if self.arguments == "fails at start":
            raise ValueError("cannot start")

    def on_exit(self) -> None:
        JOURNAL.append(f"{self.name}#{self.incarnation} exit")

    def receiveMsg_Do(self, message: Do, sender: ActorAddress) -> None:
        if message.what == "finish":
            self.finish()
        elif message.what == "peers":
            self.send(sender, Done(what="peers", result=sorted(self.addresses)))
        elif message.what == "hang":
            time.sleep(message.argument)


class Stubborn(Worker):
    """Does not stop when asked."""

    def receiveMsg_StopRequested(self, message: StopRequested, sender: ActorAddress) -> None:
        JOURNAL.append(f"{self.name} heard the stop request")


class Mute(Worker):
    """Never reports ready."""

    IS_READY_WHEN_WIRED: ClassVar[bool] = False


class Boss(Supervisor):
    """Takes its children, strategy and intensity from its arguments; journals its hooks."""

    def child_specs(self) -> tuple[ChildSpec, ...]:
        self.strategy = self.arguments.get("strategy", Strategy.REST_FOR_ONE)  # type: ignore[misc]
        self.intensity = self.arguments.get("intensity", RestartIntensity())  # type: ignore[misc]
        specs: tuple[ChildSpec, ...] = self.arguments["specs"]
        return specs

    def on_children_changed(self) -> None:
        JOURNAL.append(f"{self.name} changed")

    def on_child_event(self, kind: str, name: str, reason_text: str) -> None:
        JOURNAL.append(f"{self.name} {kind} {name}: {reason_text}")

    def on_escalation(self) -> None:
        JOURNAL.append(f"{self.name} escalation")

    def receiveMsg_Do(self, message: Do, sender: ActorAddress) -> None:
        if message.what == "tell":
            name, told = message.argument
            if (address := self.child_address(name)) is not None:
                self.send(address, told)
        elif message.what == "add":
            self.start_child(message.argument)
        elif message.what == "remove":
            self.stop_child(message.argument)
        elif message.what == "doom":  # the process that is forked next ends at once
            os.register_at_fork(before=_count_fork, after_in_child=_end_if_doomed)
        elif message.what == "kill":
            self.kill_child(message.argument, "killed by the test")
        elif message.what == "journal":
            self.send(sender, Done(what="journal", result=list(JOURNAL)))


_forks = itertools.count(1)
_fork = 0


def _count_fork() -> None:
    global _fork
    _fork = next(_forks)


def _end_if_doomed() -> None:
    if _fork == 1:
        os.kill(os.getpid(), signal.SIGKILL)


class Recorder(GatewayActor):
    """Keeps what it is sent, where an in-process test can see it."""

    received: ClassVar[list[object]] = []

    def _receive_stray_mail(self, message: object, sender: ActorAddress) -> None:
        self.received.append(message)


@attrs.frozen(kw_only=True)
class Ask:
    """Test -> Asker: send `question` to `target` in your name."""

    target: ActorAddress = attrs.field(repr=False)
    question: object


class Asker(Recorder):
    def receiveMsg_Ask(self, message: Ask, sender: ActorAddress) -> None:
        self.send(message.target, message.question)


def workers(*names: str, **keywords: Any) -> tuple[ChildSpec, ...]:
    return tuple(ChildSpec(name=name, actor_class=Worker, **keywords) for name in names)


# ---- in-process


class InProcess:
    """A Boss called "boss" on an InProcessSystem, and what the tests say to it."""

    def __init__(self, **arguments: Any) -> None:
        JOURNAL.clear()
        Recorder.received.clear()
        self.system = InProcessSystem()
        self.asker = self.system.create(Asker, Wiring(name="asker", incarnation=1, addresses={}, runtime=self.system))
        wiring = Wiring(name="boss", incarnation=1, addresses={}, runtime=self.system, arguments=arguments)
        self.boss = self.system.create(Boss, wiring)

    def tell(self, name: str, message: object) -> list[str]:
        """Send to a child by name; answer what the journal has gained."""
        return self.do("tell", (name, message))

    def do(self, what: str, argument: Any) -> list[str]:
        before = len(JOURNAL)
        self.system.post(self.boss, Do(what=what, argument=argument))
        return JOURNAL[before:]

    def ask(self, question: object) -> Any:
        Recorder.received.clear()
        self.system.post(self.asker, Ask(target=self.boss, question=question))
        return Recorder.received[-1] if Recorder.received else None

    def registry_size(self) -> int:
        return len(self.system._base.actorRegistry)


def in_process(test: Callable[..., None]) -> None:
    """Run a test body inside an event loop."""

    async def run() -> None:
        test()

    asyncio.run(run())


def test_children_start_in_order_and_know_those_before_them() -> None:
    def body() -> None:
        InProcess(specs=workers("a", "b"))
        assert JOURNAL == ["boss/a#1 wired", "boss/b#1 wired", "boss changed"]

    in_process(body)


def test_a_crash_restarts_the_child_and_the_later_ones_before_the_sender_of_the_crash_goes_on() -> None:
    """Synchronous in-process: nobody in the loop ever sees the gap."""

    def body() -> None:
        gateway = InProcess(specs=workers("a", "b", "c"))
        assert gateway.tell("b", CrashRequested()) == [
            "boss/b#1 exit",
            "boss child_exited b: RequestedCrash: fault injection",
            "boss/c#1 exit",
            "boss/b#2 wired",
            "boss/c#2 wired",
            "boss restarted b: RequestedCrash: fault injection",
            "boss changed",
        ]

    in_process(body)


def test_a_transient_child_that_finishes_stays_down_and_one_that_crashes_does_not() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a", restart=Restart.TRANSIENT))
        assert gateway.tell("a", CrashRequested())[-1] == "boss changed"
        assert gateway.tell("a", Do(what="finish")) == ["boss/a#2 exit", "boss child_exited a: finished"]

    in_process(body)


def test_an_end_without_a_word_counts_as_killed() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a", restart=Restart.TRANSIENT))
        assert "boss/a#2 wired" in gateway.tell("a", ActorExitRequest())

    in_process(body)


def test_too_many_crashes_stop_the_children_in_reverse_and_end_the_supervisor() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a", "b"), strategy=Strategy.ONE_FOR_ONE, intensity=RestartIntensity(max_restarts=1))
        gateway.tell("b", CrashRequested())
        assert gateway.tell("a", CrashRequested()) == [
            "boss/a#1 exit",
            "boss child_exited a: RequestedCrash: fault injection",
            "boss escalated : more than 1 restarts in 10 s, last: a",
            "boss escalation",
            "boss/b#2 exit",
        ]
        assert gateway.ask(SnapshotRequested(request_id="1")) is None

    in_process(body)


def test_a_supervisor_below_that_gives_up_is_restarted_by_the_one_above() -> None:
    def body() -> None:
        below = ChildSpec(
            name="below",
            actor_class=Boss,
            arguments={"specs": workers("x"), "intensity": RestartIntensity(max_restarts=0)},
        )
        gateway = InProcess(specs=(below, *workers("z")))
        snapshot = gateway.ask(SnapshotRequested(request_id="1")).snapshot
        assert [child.name for child in snapshot.children[0].children] == ["boss/below/x"]
        assert gateway.do("tell", ("below", Do(what="tell", argument=("x", CrashRequested()))))[-5:] == [
            "boss/below/x#1 wired",
            "boss/below changed",
            "boss/z#2 wired",
            "boss restarted below: more than 0 restarts in 10 s, last: x",
            "boss changed",
        ]

    in_process(body)


def test_a_stop_ends_the_children_in_reverse_order_those_below_first() -> None:
    def body() -> None:
        below = ChildSpec(name="below", actor_class=Boss, arguments={"specs": workers("x", "y")})
        gateway = InProcess(specs=(*workers("a"), below, *workers("c")))
        before = len(JOURNAL)
        gateway.system.post(gateway.boss, StopRequested())
        ends = ["boss/c#1 exit", "boss/below/y#1 exit", "boss/below/x#1 exit", "boss/a#1 exit"]
        assert JOURNAL[before:] == ends

    in_process(body)


def test_an_exit_request_without_a_stop_request_keeps_the_reverse_order() -> None:
    """`InProcessSystem.stop` asks like that."""

    def body() -> None:
        gateway = InProcess(specs=workers("a", "b", "c"))
        before = len(JOURNAL)
        gateway.system.stop(gateway.boss)
        assert JOURNAL[before:] == ["boss/c#1 exit", "boss/b#1 exit", "boss/a#1 exit"]

    in_process(body)


def test_a_restart_on_request_is_answered_and_not_counted() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a", "b"), intensity=RestartIntensity(max_restarts=0))
        answer = gateway.ask(RestartChildRequested(name="a", request_id="r1"))
        assert answer == ChildRestarted(request_id="r1", started=("a", "b"))
        assert "boss restarted a: on request" in JOURNAL
        refusal = gateway.ask(RestartChildRequested(name="z", request_id="r2"))
        assert refusal == ChildRestartRefused(request_id="r2", error_text="no child named 'z'")

    in_process(body)


def test_children_come_and_go_at_run_time() -> None:
    def body() -> None:
        gateway = InProcess(specs=(), strategy=Strategy.ONE_FOR_ONE)
        for name in ("u1", "u2", "u3"):
            assert gateway.do("add", workers(name)[0]) == [f"boss/{name}#1 wired", "boss changed"]
        assert gateway.do("remove", "u2") == ["boss/u2#1 exit", "boss changed"]
        assert "boss/u1#2 wired" in gateway.tell("u1", CrashRequested())
        snapshot = gateway.ask(SnapshotRequested(request_id="1")).snapshot
        assert [(row.name, row.restarts) for row in snapshot.children] == [("boss/u1", 1), ("boss/u3", 0)]

    in_process(body)


def test_a_child_added_at_run_time_that_cannot_start_is_reported_and_forgotten() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a"))
        assert gateway.do("add", workers("bad", arguments="fails at start")[0]) == [
            "boss/bad#1 wired",
            "boss/bad#1 exit",
            "boss child_exited bad: ValueError: cannot start",
            "boss changed",
        ]

    in_process(body)


def test_a_child_that_never_gets_ready_is_given_up_after_its_start_deadline() -> None:
    async def run() -> None:
        gateway = InProcess(specs=workers("a"))
        gateway.do("add", ChildSpec(name="mute", actor_class=Mute, start_timeout_s=0.02))
        async with asyncio.timeout(5):
            while "boss child_exited mute: not ready within 0.02 s" not in JOURNAL:
                await asyncio.sleep(0.005)
        snapshot = gateway.ask(SnapshotRequested(request_id="1")).snapshot
        assert [row.name for row in snapshot.children] == ["boss/a"]

    asyncio.run(run())


def test_a_child_that_ignores_the_stop_request_is_ended_after_its_shutdown_timeout() -> None:
    async def run() -> None:
        gateway = InProcess(specs=(ChildSpec(name="s", actor_class=Stubborn, shutdown_timeout_s=0.02),))
        gateway.system.post(gateway.boss, StopRequested())
        assert JOURNAL[-1] == "boss/s heard the stop request"
        async with asyncio.timeout(5):
            while JOURNAL[-1] != "boss/s#1 exit":
                await asyncio.sleep(0.005)

    asyncio.run(run())


def test_the_snapshot_tells_name_pid_incarnation_uptime_restarts_and_why_the_last_one_ended() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a"))
        gateway.tell("a", CrashRequested(reason="test"))
        answer = gateway.ask(SnapshotRequested(request_id="q"))
        assert isinstance(answer, SnapshotTaken)
        assert answer.request_id == "q"
        (row,) = answer.snapshot.children
        assert (row.name, row.pid, row.incarnation, row.restarts) == ("boss/a", os.getpid(), 2, 1)
        assert row.last_exit_text == "RequestedCrash: test"
        assert 0 <= row.uptime_s < 5

    in_process(body)


def test_a_thousand_crashes_leave_nothing_behind_and_take_milliseconds_at_most() -> None:
    def body() -> None:
        gateway = InProcess(specs=workers("a", "b"), intensity=RestartIntensity(max_restarts=10_000))
        gateway.tell("a", CrashRequested())
        size = gateway.registry_size()
        loop: Any = asyncio.get_running_loop()
        handles = len(loop._scheduled)
        started_s = time.thread_time()
        for _ in range(1000):
            gateway.tell("a", CrashRequested())
            JOURNAL.clear()
        per_crash_s = (time.thread_time() - started_s) / 1000
        assert gateway.registry_size() == size
        assert len(loop._scheduled) == handles
        assert per_crash_s < 0.003  # a bound against runaway growth, not a promise of speed
        snapshot = gateway.ask(SnapshotRequested(request_id="1")).snapshot
        assert [row.incarnation for row in snapshot.children] == [1002, 1002]

    in_process(body)


# ---- with processes


@contextlib.contextmanager
def process_system() -> Iterator[ActorSystem]:
    """A multiprocTCPBase system on a free port; nothing of it may be left afterwards."""
    become_subreaper()  # so that whatever the system leaves behind is a descendant of this process, and nothing else is
    before = psutil.Process().children(recursive=True)
    JOURNAL.clear()
    quiet = {"version": 1, "root": {"level": "CRITICAL", "handlers": []}}
    system = ActorSystem("multiprocTCPBase", {"Admin Port": free_port()}, logDefs=quiet, transientUnique=True)
    try:
        yield system
    finally:
        system.shutdown()
        ours = [each for each in psutil.Process().children(recursive=True) if each not in before]
        _, left = psutil.wait_procs(ours, timeout=10)
        for each in left:
            each.kill()
        psutil.wait_procs(left, timeout=5)
        assert not left, f"left behind: {left}"


class Processes:
    """A Boss called "boss" on processes."""

    def __init__(self, system: ActorSystem, **arguments: Any) -> None:
        self.system = system
        self.boss = system.createActor(Boss)
        ready = system.ask(self.boss, Wiring(name="boss", incarnation=1, addresses={}, arguments=arguments), 10)
        assert ready is not None

    def rows(self) -> dict[str, Any]:
        answer = self.system.ask(self.boss, SnapshotRequested(request_id="1"), 5)
        assert isinstance(answer, SnapshotTaken)
        return {row.name.removeprefix("boss/"): row for row in answer.snapshot.children}

    def until(self, holds: Callable[[dict[str, Any]], bool], within_s: float = 10.0) -> dict[str, Any]:
        deadline_s = time.monotonic() + within_s
        while not holds(rows := self.rows()):
            assert time.monotonic() < deadline_s, rows
            time.sleep(0.01)
        return rows

    def tell(self, name: str, message: object) -> None:
        self.system.tell(self.boss, Do(what="tell", argument=(name, message)))


def test_processes_are_restarted_after_a_crash_and_after_a_kill_and_later_ones_with_them() -> None:
    with process_system() as system:
        node = Processes(system, specs=workers("a", "b", "c"))
        first = node.rows()
        assert len({row.pid for row in first.values()}) == 3
        # 1. an unhandled error
        node.tell("b", CrashRequested(reason="test"))
        second = node.until(lambda rows: all(rows[name].incarnation == 2 and rows[name].is_ready for name in "bc"))
        assert second["b"].last_exit_text == "RequestedCrash: test"
        assert second["a"] == attrs.evolve(first["a"], uptime_s=second["a"].uptime_s)
        # 2. a signal nobody can handle
        os.kill(second["c"].pid, signal.SIGKILL)
        third = node.until(lambda rows: rows["c"].incarnation == 3 and rows["c"].is_ready)
        assert third["c"].last_exit_text == "killed by SIGKILL"
        assert third["b"].incarnation == 2


def test_a_process_that_does_not_stop_is_killed_and_the_node_goes_on() -> None:
    with process_system() as system:
        node = Processes(system, specs=(*workers("a"), *workers("b", shutdown_timeout_s=0.2)))
        pid = node.rows()["b"].pid
        node.tell("b", Do(what="hang", argument=60))
        answer = system.ask(node.boss, RestartChildRequested(name="b", request_id="r"), 10)
        assert answer == ChildRestarted(request_id="r", started=("b",))
        assert not psutil.pid_exists(pid)
        assert node.rows()["b"].last_exit_text == "killed: did not stop within 0.2 s"


def test_a_hung_process_that_is_killed_on_purpose_comes_back() -> None:
    with process_system() as system:
        node = Processes(system, specs=workers("a"))
        os.kill(node.rows()["a"].pid, signal.SIGSTOP)
        system.tell(node.boss, Do(what="kill", argument="a"))
        rows = node.until(lambda rows: rows["a"].incarnation == 2 and rows["a"].is_ready)
        assert rows["a"].last_exit_text == "killed by the test"


def test_a_process_that_never_gets_ready_is_killed_at_its_start_deadline() -> None:
    with process_system() as system:
        node = Processes(system, specs=workers("a"))
        system.tell(node.boss, Do(what="add", argument=ChildSpec(name="mute", actor_class=Mute, start_timeout_s=0.2)))
        deadline_s = time.monotonic() + 10
        # What stays of it: the row itself is there for a moment only.
        while "boss child_exited mute: not ready within 0.2 s" not in system.ask(node.boss, Do(what="journal"), 5).result:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert "mute" not in node.rows()


def test_a_process_that_ends_before_it_has_connected_is_started_again_at_once() -> None:
    with process_system() as system:
        node = Processes(system, specs=workers("a", start_timeout_s=60.0))
        system.tell(node.boss, Do(what="doom"))
        node.tell("a", CrashRequested())
        rows = node.until(lambda rows: rows["a"].incarnation == 3 and rows["a"].is_ready)
        assert rows["a"].last_exit_text == "killed by SIGKILL"


def test_a_stop_request_ends_all_processes_and_the_supervisor() -> None:
    with process_system() as system:
        node = Processes(system, specs=workers("a", "b"))
        pids = [row.pid for row in node.rows().values()]
        system.tell(node.boss, StopRequested())
        deadline_s = time.monotonic() + 5
        while any(psutil.pid_exists(pid) for pid in pids):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


@pytest.mark.parametrize("_round", range(3))
def test_many_crashes_in_a_row_restart_each_time_exactly_once(_round: int) -> None:
    """Two exit notices for each end must not count as two ends."""
    with process_system() as system:
        node = Processes(system, specs=workers("a"), intensity=RestartIntensity(max_restarts=100))
        for incarnation in range(2, 12):
            node.tell("a", CrashRequested())
            node.until(lambda rows, wanted=incarnation: rows["a"].incarnation == wanted and rows["a"].is_ready)
        node.until(lambda rows: rows["a"].uptime_s > 0.1)
        assert node.rows()["a"].incarnation == 11
