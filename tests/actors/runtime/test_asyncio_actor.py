"""An actor with an event loop, between real processes and in one process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOUBLES = Path(__file__).parents[2] / "doubles"


@pytest.fixture(autouse=True)
def _doubles_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOUBLES))


def run_scenario(name: str) -> Any:
    """Run a scenario of `loop_actors` in a process of its own: hardening is for good, and actor processes fork from it."""
    done = subprocess.run(
        [sys.executable, "-c", f"import loop_actors; loop_actors.run({name!r})"],
        env={**os.environ, "PYTHONPATH": str(DOUBLES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_burst_from_the_loop_arrives_complete_and_in_order() -> None:
    (answered,) = run_scenario("burst")
    assert answered["numbers"] == list(range(2000))
    assert answered["undeliverable"] == []


def test_a_burst_from_the_loop_arrives_complete_at_an_actor_without_one() -> None:
    (answered,) = run_scenario("burst at a plain actor")
    assert sorted(answered["numbers"]) == list(range(300))


def test_a_hung_target_holds_up_nobody_else_and_its_mail_comes_back() -> None:
    other, hung = run_scenario("hung target")
    assert other["numbers"] == list(range(500))
    assert other["elapsed_s"] < 2.5
    assert hung["numbers"] == []
    assert hung["undeliverable"] == list(range(500))


def test_mail_to_a_killed_target_comes_back() -> None:
    (answered,) = run_scenario("dead target")
    assert answered["numbers"] == []
    assert sorted(answered["undeliverable"]) == list(range(300))
    assert answered["elapsed_s"] < 12


def test_an_error_in_a_task_ends_the_actor() -> None:
    assert run_scenario("failing task") is True


def test_in_process_the_same_classes_talk_over_the_running_loop() -> None:
    async def scenario() -> Any:
        import loop_actors

        from mcp_gateway.actors.messages.lifecycle import Wiring
        from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
        from mcp_gateway.actors.runtime.in_process_system import InProcessSystem

        answers: asyncio.Queue[Any] = asyncio.Queue()

        class Listener(GatewayActor):
            def receiveMsg_AnsweredAll(self, message: Any, sender: Any) -> None:
                answers.put_nowait(message)

            def receiveMsg_ChildReady(self, message: Any, sender: Any) -> None:
                pass

            def receiveMsg_Question(self, message: Any, sender: Any) -> None:
                self.send(asker, loop_actors.AskMany(answerer, 50))

        system = InProcessSystem()
        wiring = Wiring(name="any", incarnation=1, addresses={}, runtime=system)
        listener, asker, answerer = (system.create(each, wiring) for each in (Listener, loop_actors.Asker, loop_actors.Answerer))
        system.post(listener, loop_actors.Question(0))
        return await asyncio.wait_for(answers.get(), 5)

    assert asyncio.run(scenario()).numbers == tuple(range(50))


def test_what_comes_after_the_loop_has_closed_is_no_error() -> None:
    """An actor that leaves still hears that its mail came back; its loop is gone by then."""
    from mcp_gateway.actors.runtime.asyncio_actor import AsyncioActor

    actor, called = AsyncioActor(), []
    actor.loop = asyncio.new_event_loop()
    actor.loop.close()
    actor.call_loop(called.append, 1)
    assert called == []
