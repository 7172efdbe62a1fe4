"""simpleSystemBase under an event loop: order, no re-entrance, timers, nothing left of the dead.

These tests use each private name of Thespian that the module relies on, so that they fail when one changes.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from thespian.actors import Actor, ActorAddress, ActorExitRequest, ChildActorExited

from mcp_gateway.actors.runtime.in_process_system import InProcessSystem


class Journalist(Actor):
    """Journals when it enters and leaves a handler."""

    journal: ClassVar[list[Any]] = []
    system: ClassVar[InProcessSystem]

    def receiveMessage(self, message: Any, sender: ActorAddress) -> None:
        if isinstance(message, ChildActorExited):
            self.journal.append("child exited")
            return
        if isinstance(message, ActorExitRequest):
            self.journal.append("exit")
            return
        self.journal.append(f"enter {message}")
        if message == "post inside":
            self.system.post(self.myAddress, "posted")
            self.system.pump()
        elif message == "answer":
            self.send(sender, "to whoever asked")
        elif message == "make child":
            self.child = self.createActor(Journalist)
        elif message == "end child":
            self.send(self.child, ActorExitRequest())
        elif isinstance(message, tuple):
            for each in message:
                self.send(self.myAddress, each)
        self.journal.append(f"leave {message}")


def started() -> tuple[InProcessSystem, ActorAddress]:
    Journalist.journal.clear()
    system = Journalist.system = InProcessSystem()
    actor = system.create(Journalist, "wiring")
    assert Journalist.journal == ["enter wiring", "leave wiring"]
    Journalist.journal.clear()
    return system, actor


def test_a_post_from_loop_code_has_run_when_it_returns() -> None:
    async def body() -> None:
        system, actor = started()
        system.post(actor, "m")
        assert Journalist.journal == ["enter m", "leave m"]

    asyncio.run(body())


def test_a_post_from_inside_a_handler_waits_for_the_handler_to_return() -> None:
    """Thespian's own tell() would run the actor inside itself."""

    async def body() -> None:
        system, actor = started()
        system.post(actor, "post inside")
        assert Journalist.journal == ["enter post inside", "leave post inside", "enter posted", "leave posted"]

    asyncio.run(body())


def test_messages_are_delivered_in_the_order_they_were_sent() -> None:
    async def body() -> None:
        system, actor = started()
        system.post(actor, tuple(range(50)))
        assert [each for each in Journalist.journal if each.startswith("enter")][1:] == [f"enter {n}" for n in range(50)]

    asyncio.run(body())


def test_mail_of_handlers_and_of_thespian_is_delivered_in_one_order() -> None:
    """An exit request, which Thespian queues itself, does not overtake what was sent before it, nor the other way round."""

    async def body() -> None:
        system, actor = started()
        system.post(actor, "make child")
        Journalist.journal.clear()
        child = system._registry[actor.actorAddressString].instance.child
        system._is_pumping = True
        system.send(actor, child, "before")
        system._base.actor_send(actor, child, ActorExitRequest())
        system.send(actor, child, "after")
        system._is_pumping = False
        system.pump()
        assert Journalist.journal == ["enter before", "leave before", "exit", "child exited"], "the dead get no mail"

    asyncio.run(body())


def test_an_answer_to_loop_code_comes_back_to_the_actor_and_does_not_pile_up_in_thespian() -> None:
    async def body() -> None:
        system, actor = started()
        for _ in range(10):
            system.post(actor, "answer")
        external = system._base.actorRegistry["System:ExternalRequester"].instance
        assert not getattr(external, "responses", [])
        assert Journalist.journal.count("enter to whoever asked") == 10

    asyncio.run(body())


def test_a_delayed_post_arrives_by_the_loops_clock() -> None:
    async def body() -> None:
        system, actor = started()
        system.post_later(0.01, actor, "late")
        assert Journalist.journal == []
        async with asyncio.timeout(5):
            while not Journalist.journal:
                await asyncio.sleep(0.002)
        assert Journalist.journal == ["enter late", "leave late"]

    asyncio.run(body())


def test_two_systems_in_one_process_are_apart() -> None:
    """Without transientUnique the second ActorSystem would be the first."""

    async def body() -> None:
        first, actor = started()
        second = InProcessSystem()
        second.post(actor, "to the other")
        assert Journalist.journal == []
        assert first._base is not second._base

    asyncio.run(body())


def test_nothing_is_kept_of_the_dead_once_they_are_forgotten() -> None:
    async def body() -> None:
        system, actor = started()
        size = len(system._base.actorRegistry)
        for _ in range(100):
            system.post(actor, "make child")
            system.post(actor, "end child")
        assert Journalist.journal.count("child exited") == 100
        assert len(system._base.actorRegistry) == size + 100  # why forget_dead exists
        system.forget_dead()
        assert len(system._base.actorRegistry) == size
        system.post(actor, "alive")
        assert Journalist.journal[-1] == "leave alive"

    asyncio.run(body())


def test_mail_for_a_forgotten_actor_is_dropped_quietly() -> None:
    async def body() -> None:
        system, actor = started()
        system.post(actor, ActorExitRequest())
        system.forget_dead()
        system.post(actor, "too late")
        assert Journalist.journal == ["exit"]

    asyncio.run(body())


def test_stop_ends_the_tree_with_exit_requests() -> None:
    """simpleSystemBase's own shutdown sends none."""

    async def body() -> None:
        system, actor = started()
        system.post(actor, "make child")
        Journalist.journal.clear()
        system.stop(actor)
        assert Journalist.journal == ["exit", "exit"]

    asyncio.run(body())
