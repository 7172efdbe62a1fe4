"""The base actor on the in-process base: wiring, crash on error, timers, stray mail, ways to end."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import attrs
import pytest
from thespian.actors import ActorAddress, ActorExitRequest, ActorSystem, PoisonMessage

from mcp_gateway.actors.messages.lifecycle import ActorCrashed, ActorFinished, ChildReady, CrashRequested, StopRequested, Wiring
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.actors.runtime.in_process_system import InProcessSystem
from mcp_gateway.actors.runtime.lanes import Batch
from tests.doubles.patience import until


@attrs.frozen
class Command:
    what: str
    argument: Any = None


class SpecialCommand(Command):
    """Has no handler of its own."""


@attrs.frozen
class Unheard:
    """Nobody handles it."""


class Parent(GatewayActor):
    """Creates one Subject with the arguments it was given, and records what reaches it."""

    received: ClassVar[list[object]] = []

    def on_wired(self) -> None:
        addresses = {} if self.arguments == "no supervisor" else {"supervisor": self.myAddress}
        self.subject = self.createActor(Subject)
        runtime = self.runtime
        self.send(
            self.subject,
            Wiring(name="parent/subject", incarnation=3, addresses=addresses, runtime=runtime, arguments=self.arguments),
        )

    def receiveMsg_Command(self, message: Command, sender: ActorAddress) -> None:
        self.send(self.subject, message.argument)

    def on_child_exited(self, child: ActorAddress) -> None:
        self.received.append("child exited")

    def _receive_stray_mail(self, message: object, sender: ActorAddress) -> None:
        self.received.append(message)


class Subject(GatewayActor):
    """Does as told; journals its hooks in `Parent.received`."""

    def on_wired(self) -> None:
        if self.arguments == "fail at start":
            raise ValueError("cannot start")

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        Parent.received.append(f"answered for {type(message).__name__}")
        if self.arguments == "on_crash fails":
            raise ValueError("cannot answer")

    def on_exit(self) -> None:
        Parent.received.append("on_exit")
        if self.arguments == "on_exit fails":
            raise ValueError("cannot let go")

    def receiveMsg_Command(self, message: Command, sender: ActorAddress) -> None:
        match message.what:
            case "finish":
                self.finish()
            case "start timer":
                name, delay_s, payload = message.argument
                self.start_timer(name, delay_s, payload)
            case "stray count":
                Parent.received.append(self.stray_mail_count)
            case "crash and then mail":
                self.send(self.myAddress, Unheard())
                raise ValueError("on purpose")
            case other:
                Parent.received.append(other)

    def receiveTimer_tick(self, payload: object) -> None:
        Parent.received.append(("tick", payload))


class Scene:
    """A Parent with its Subject in an in-process system."""

    def __init__(self, arguments: object = None) -> None:
        Parent.received.clear()
        self.system = InProcessSystem()
        wiring = Wiring(name="parent", incarnation=1, addresses={}, runtime=self.system, arguments=arguments)
        self.parent = self.system.create(Parent, wiring)
        self.start_reports = list(Parent.received)
        Parent.received.clear()

    def tell(self, *messages: object) -> list[object]:
        """Send to the subject; what has been recorded since the start."""
        for message in messages:
            self.system.post(self.parent, Command("pass on", message))
        return Parent.received


def run(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(body())  # type: ignore[arg-type]


CRASH_REPORT = ActorCrashed(name="parent/subject", incarnation=3, error_text="RequestedCrash: fault injection")


def test_a_batch_is_handled_message_by_message_in_order() -> None:
    async def body() -> None:
        scene = Scene()
        assert scene.tell(Batch(items=(Command("one"), Command("two")))) == ["one", "two"]
        scene.tell(Batch(items=(Command("three"), CrashRequested(), Command("four"), Unheard())))
        await until(lambda: "child exited" in Parent.received)
        answered = [f"answered for {name}" for name in ("CrashRequested", "Command", "Unheard")]
        assert Parent.received[2:] == ["three", answered[0], *answered[1:], CRASH_REPORT, "on_exit", "child exited"]

    run(body)


def test_a_wired_actor_reports_ready_with_its_name_and_incarnation() -> None:
    async def body() -> None:
        scene = Scene()
        assert scene.start_reports == [ChildReady(name="parent/subject", incarnation=3)]

    run(body)


def test_an_unhandled_error_is_reported_then_ends_the_actor_and_is_not_tried_again() -> None:
    """Thespian alone would run the handler three times, answer with poison and keep the actor."""

    async def body() -> None:
        assert Scene().tell(CrashRequested()) == [
            "answered for CrashRequested",
            CRASH_REPORT,
            "on_exit",
            "child exited",
        ]
        assert not any(isinstance(each, PoisonMessage) for each in Parent.received)

    run(body)


def test_mail_behind_a_crash_is_answered_for_and_not_handled() -> None:
    async def body() -> None:
        received = Scene().tell(Command("crash and then mail"))
        assert received[:2] == ["answered for Command", "answered for Unheard"]
        assert received[-2:] == ["on_exit", "child exited"]

    run(body)


def test_an_error_while_being_wired_is_a_crash_without_a_ready_report() -> None:
    async def body() -> None:
        assert Scene("fail at start").start_reports == [
            "answered for Wiring",
            ActorCrashed(name="parent/subject", incarnation=3, error_text="ValueError: cannot start"),
            "on_exit",
            "child exited",
        ]

    run(body)


@pytest.mark.parametrize("arguments", ["on_crash fails", "on_exit fails"])
def test_errors_in_the_last_hooks_do_not_keep_the_actor_alive(arguments: str) -> None:
    async def body() -> None:
        received = Scene(arguments).tell(CrashRequested())
        assert received == ["answered for CrashRequested", CRASH_REPORT, "on_exit", "child exited"]

    run(body)


def test_an_actor_without_a_supervisor_crashes_all_the_same() -> None:
    async def body() -> None:
        assert Scene("no supervisor").tell(CrashRequested())[-2:] == ["on_exit", "child exited"]

    run(body)


def test_a_finished_actor_says_so_before_it_ends() -> None:
    async def body() -> None:
        assert Scene().tell(Command("finish")) == [
            ActorFinished(name="parent/subject", incarnation=3),
            "on_exit",
            "child exited",
        ]

    run(body)


@pytest.mark.parametrize("request_", [StopRequested(), ActorExitRequest()])
def test_an_asked_actor_ends_without_a_crash_report(request_: object) -> None:
    async def body() -> None:
        assert Scene().tell(request_) == ["on_exit", "child exited"]

    run(body)


def test_on_exit_runs_once_however_often_the_exit_is_asked_for() -> None:
    """On a multiprocess base a leaving actor still gets exit requests; here the engine is called as it would be there."""
    subject = Subject()
    Parent.received.clear()
    for _ in range(3):
        subject.receiveMessage(ActorExitRequest(), ActorAddress("anyone"))
    assert Parent.received == ["on_exit"]


def test_a_message_is_handled_by_the_handler_of_its_nearest_ancestor() -> None:
    async def body() -> None:
        assert Scene().tell(SpecialCommand("by ancestor")) == ["by ancestor"]

    run(body)


def test_mail_that_nobody_handles_is_counted_and_harms_nothing() -> None:
    async def body() -> None:
        assert Scene().tell(Unheard(), Unheard(), Command("stray count")) == [2]

    run(body)


def test_a_timer_fires_once_with_its_payload() -> None:
    async def body() -> None:
        scene = Scene()
        scene.tell(Command("start timer", ("tick", 0.01, "p")), Command("start timer", ("tick", 0.02, "q")))
        await until(lambda: bool(Parent.received))
        assert Parent.received == [("tick", "q")]  # the second start has replaced the first

    run(body)


def test_a_timer_of_a_dead_actor_is_dropped() -> None:
    async def body() -> None:
        scene = Scene()
        scene.tell(Command("start timer", ("tick", 0.0, "late")), ActorExitRequest())
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, fired.set)
        await fired.wait()
        assert Parent.received == ["on_exit", "child exited"]

    run(body)


def test_a_timer_without_a_runtime_is_thespians_own() -> None:
    """What a multiprocess base pumps itself; simpleSystemBase does it inside listen()."""
    Parent.received.clear()
    system = ActorSystem("simpleSystemBase", transientUnique=True, logDefs=False)
    subject = system.createActor(Subject)
    system.tell(subject, Wiring(name="s", incarnation=1, addresses={}))
    system.tell(subject, Command("start timer", ("tick", 0.01, 1)))
    system.listen(5)  # until no timer is left
    assert ("tick", 1) in Parent.received


def test_log_lines_carry_the_actors_name_and_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    subject = Subject()
    subject.name = "cell/0/router"
    with caplog.at_level(logging.INFO):
        subject.log(logging.INFO, "text", request_id="r1")
    (record,) = caplog.records
    assert (record.actor, record.fields) == ("cell/0/router", {"request_id": "r1"})  # type: ignore[attr-defined]


def test_the_clock_runs_forward_in_seconds() -> None:
    first, second = GatewayActor.monotonic_s(), GatewayActor.monotonic_s()
    assert second >= first
    assert math.isfinite(first)
