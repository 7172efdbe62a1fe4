"""What a cell says of itself and what commands do to it, asked of scripted actors; whole cells are in `test_cell.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.cell import cell_status
from mcp_gateway.actors.cell.cell_status import CellStatus
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusReported
from mcp_gateway.actors.messages.supervision import (
    ChildRestarted,
    ChildRestartRefused,
    RestartChildRequested,
    SnapshotRequested,
    SnapshotTaken,
    SupervisionSnapshot,
)
from tests.doubles.running_cell import cell_settings

TREE = SupervisionSnapshot(name="cell/0", pid=7, incarnation=1, uptime_s=1.0, restarts=0)


class Actors:
    """A cell's port, at which the actors of `answers` ({name: status}) speak up; the others are silent or not there."""

    def __init__(self, answers: dict[str, Any], silent: tuple[str, ...] = ()) -> None:
        self.settings = cell_settings()
        self.sessions = ["one", "two"]
        self.told: list[tuple[str, object]] = []
        self._answers, self._silent = answers, silent

    def connection_counts(self) -> dict[str, int]:
        return {"websocket": 3}

    def tell(self, child: str, message: object) -> None:
        self.told.append((child, message))

    async def ask(self, child: str, question: Any) -> object:
        if child in self._silent:
            await asyncio.Event().wait()
        if isinstance(question, SnapshotRequested):
            return SnapshotTaken(request_id=question.request_id, snapshot=TREE)
        if isinstance(question, RestartChildRequested):
            self.told.append((child, question.name))
        if child not in self._answers:
            raise LookupError(f"{child} does not run")
        answer = self._answers[child]
        return StatusReported(question.request_id, answer) if isinstance(answer, dict) else answer


def status_of(actors: Actors) -> CellStatus:
    return CellStatus("cell/0", actors, actors)  # type: ignore[arg-type]


def carried_out(actors: Actors, name: str, child: str) -> dict[str, Any]:
    return asyncio.run(status_of(actors).command(name, {"child": child}))


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_status, "_QUESTION_TIMEOUT_S", 0.05)


def test_a_status_has_what_router_and_pool_say_of_each_replica() -> None:
    routes, pools = {"circuit": "open", "health": "healthy", "ring_share": 1.0}, {"idle": 4}
    actors = Actors({"router": {"demo": {"builtin:demo": routes}}, "connection-pool": {"demo": {"builtin:demo": pools}}})
    status = asyncio.run(status_of(actors).take())
    (backend,) = status["backends"]
    assert backend["replicas"] == [{"address": "builtin:demo", **routes, "pool": pools}]
    assert (status["sessions"], status["connections"], status["viability"]) == (2, {"websocket": 3}, {})


def test_a_status_names_the_replicas_that_drain() -> None:
    actors = Actors({})
    (backend,) = actors.settings.backends
    drained = attrs.evolve(backend, draining_replicas=("builtin:demo",))
    actors.settings = attrs.evolve(actors.settings, backends=(drained,))
    status = asyncio.run(status_of(actors).take())
    assert [each["draining_replicas"] for each in status["backends"]] == [["builtin:demo"]]


def test_an_actor_that_is_silent_or_away_leaves_its_part_unknown() -> None:
    status = asyncio.run(status_of(Actors({}, silent=("router",))).take())
    ((replica,),) = (backend["replicas"] for backend in status["backends"])
    assert replica == {"address": "builtin:demo", "health": "unknown", "circuit": "unknown", "ring_share": 0.0, "pool": {}}


def test_killing_a_child_crashes_it() -> None:
    actors = Actors({})
    assert carried_out(actors, "kill", "router") == {"ok": True}
    assert actors.told == [("router", CrashRequested())]


@pytest.mark.parametrize(("child", "supervisor"), [("router", "gateway-supervisor"), ("viability-monitor", "cell-supervisor")])
def test_a_restart_is_asked_of_the_supervisor_of_the_child(child: str, supervisor: str) -> None:
    actors = Actors({supervisor: ChildRestarted(request_id="r", started=(child,))})
    assert carried_out(actors, "restart", child) == {"ok": True, "started": [child]}
    assert actors.told == [(supervisor, child)]


def test_a_restart_of_the_edge_waits_for_no_answer_because_that_would_end_with_the_edge() -> None:
    actors = Actors({}, silent=("cell-supervisor",))
    assert carried_out(actors, "restart", "edge") == {"ok": True, "started": ["edge"]}


def test_what_cannot_be_done_is_said_in_one_line() -> None:
    refused = Actors({"gateway-supervisor": ChildRestartRefused(request_id="r", error_text="is stopping")})
    assert carried_out(refused, "restart", "router") == {"error": "is stopping"}
    assert carried_out(refused, "drain", "router") == {"error": "a cell has no command 'drain'"}
    assert carried_out(refused, "kill", "nobody")["error"].startswith("no child 'nobody'; there are ")
    silent = Actors({}, silent=("gateway-supervisor",))
    assert carried_out(silent, "restart", "router") == {"error": "router: no answer in time"}
    assert carried_out(Actors({}), "restart", "router") == {"error": "router: gateway-supervisor does not run"}
