"""Actors with event loops, and a driver that runs them on a hardened system of its own: `run(scenario)` in a fresh process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from mcp_gateway.actors.runtime import thespian_hardening

if "thespian.system.transport" not in sys.modules:
    thespian_hardening.set_environment()

from thespian.actors import ActorAddress, ActorSystem

from mcp_gateway.actors.messages.lifecycle import ChildReady, Wiring
from mcp_gateway.actors.runtime.asyncio_actor import AsyncioActor
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from tests.doubles.ports import free_port


@attrs.frozen
class Question:
    number: int
    text: str = attrs.field(default="", repr=False)


@attrs.frozen
class Answer:
    number: int
    pid: int


@attrs.frozen
class AskMany:
    """Ask `target` count times from the loop; tell the sender when all answers are here."""

    target: ActorAddress = attrs.field(repr=False)
    count: int


@attrs.frozen
class AnsweredAll:
    numbers: tuple[int, ...]
    undeliverable: tuple[int, ...]
    reasons: tuple[str, ...]
    elapsed_s: float


@attrs.frozen
class FailTask:
    """Raise in a task of the loop."""


@attrs.frozen
class Refused:
    number: int


class Answerer(AsyncioActor):
    """Answers from its loop, after an await."""

    def on_wired(self) -> None:
        self.start_loop()

    def receiveMsg_Question(self, message: Question, sender: ActorAddress) -> None:
        self.run_async(self._answer(message, sender))

    async def _answer(self, message: Question, sender: ActorAddress) -> None:
        await asyncio.sleep(0)
        self.deliver(sender, Answer(message.number, os.getpid()))

    def receiveMsg_FailTask(self, message: FailTask, sender: ActorAddress) -> None:
        self.run_async(self._fail())

    async def _fail(self) -> None:
        raise ValueError("on purpose")

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, Question):
            self.send(sender, Refused(message.number))


class PlainAnswerer(GatewayActor):
    """Answers at once; has no loop and no lanes, as a supervisor."""

    def receiveMsg_Question(self, message: Question, sender: ActorAddress) -> None:
        self.send(sender, Answer(message.number, os.getpid()))


class Asker(AsyncioActor):
    """Asks from its loop; several conversations at once, told apart by their targets."""

    SEND_TIMEOUT_S = 3.0

    def on_wired(self) -> None:
        self.start_loop()
        self._conversations: dict[str, dict[str, Any]] = {}

    def receiveMsg_AskMany(self, message: AskMany, sender: ActorAddress) -> None:
        self._conversations[message.target.actorAddressString] = {
            "asker": sender, "count": message.count, "numbers": [], "lost": [], "reasons": set(), "since_s": time.monotonic(),
        }  # fmt: skip
        self.call_loop(self._ask, message)

    def _ask(self, message: AskMany) -> None:
        for number in range(message.count):
            self.deliver(message.target, Question(number))

    def receiveMsg_Answer(self, message: Answer, sender: ActorAddress) -> None:
        self._note(sender, "numbers", [message.number], None)

    def receiveMsg_Refused(self, message: Refused, sender: ActorAddress) -> None:
        self._note(sender, "lost", [message.number], "refused")

    def on_undeliverable(self, target: ActorAddress, messages: Sequence[object], reason: str) -> None:
        self._note(target, "lost", [message.number for message in messages], reason)

    def _note(self, target: ActorAddress, key: str, numbers: list[int], reason: str | None) -> None:
        conversation = self._conversations[target.actorAddressString]
        conversation[key] += numbers
        conversation["reasons"] |= {reason} - {None}
        if len(conversation["numbers"]) + len(conversation["lost"]) == conversation["count"]:
            self.send(
                conversation["asker"],
                AnsweredAll(
                    tuple(conversation["numbers"]),
                    tuple(conversation["lost"]),
                    tuple(conversation["reasons"]),
                    time.monotonic() - conversation["since_s"],
                ),
            )


class Driver:
    """An external client of a fresh hardened system."""

    def __init__(self) -> None:
        port = free_port()
        thespian_hardening.harden(os.urandom(32))
        self.system = ActorSystem("multiprocTCPBase", {"Admin Port": port}, logDefs={"version": 1}, transientUnique=True)

    def create(self, actor_class: type[GatewayActor]) -> ActorAddress:
        address = self.system.createActor(actor_class)
        assert isinstance(self.system.ask(address, Wiring(name=actor_class.__name__, incarnation=1, addresses={}), 5), ChildReady)
        return address

    def pid_of(self, answerer: ActorAddress) -> int:
        answer = self.system.ask(answerer, Question(0), 5)
        assert isinstance(answer, Answer), answer
        return answer.pid


def _burst(driver: Driver) -> Any:
    asker, answerer = driver.create(Asker), driver.create(Answerer)
    return [attrs.asdict(driver.system.ask(asker, AskMany(answerer, 2000), 30))]


def _burst_at_a_plain_actor(driver: Driver) -> Any:
    asker, answerer = driver.create(Asker), driver.create(PlainAnswerer)
    return [attrs.asdict(driver.system.ask(asker, AskMany(answerer, 300), 20))]


def _hung_target(driver: Driver) -> Any:
    asker, hung, other = driver.create(Asker), driver.create(Answerer), driver.create(Answerer)
    pid = driver.pid_of(hung)
    os.kill(pid, signal.SIGSTOP)
    try:
        driver.system.tell(asker, AskMany(hung, 500))
        answers = [driver.system.ask(asker, AskMany(other, 500), 30), driver.system.listen(30)]
    finally:
        os.kill(pid, signal.SIGKILL)
    return [attrs.asdict(answer) for answer in answers]


def _dead_target(driver: Driver) -> Any:
    asker, answerer = driver.create(Asker), driver.create(Answerer)
    os.kill(driver.pid_of(answerer), signal.SIGKILL)
    return [attrs.asdict(driver.system.ask(asker, AskMany(answerer, 300), 20))]


def _failing_task(driver: Driver) -> Any:
    answerer = driver.create(Answerer)
    pidfd = os.pidfd_open(driver.pid_of(answerer))
    driver.system.tell(answerer, FailTask())
    import select

    return bool(select.select([pidfd], [], [], 5)[0])


SCENARIOS: dict[str, Callable[[Driver], Any]] = {
    "burst": _burst, "burst at a plain actor": _burst_at_a_plain_actor,
    "hung target": _hung_target, "dead target": _dead_target, "failing task": _failing_task,
}  # fmt: skip


def run(scenario: str) -> None:
    """Run the scenario and print what came of it as one JSON line."""
    driver = Driver()
    try:
        print(json.dumps(SCENARIOS[scenario](driver)), flush=True)
    finally:
        driver.system.shutdown()
