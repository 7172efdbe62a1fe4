"""The shell around the restart plan: starts, watches, stops and restarts children, in-process or as processes."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

import attrs
from thespian.actors import ActorAddress, ActorExitRequest, ChildActorExited

from mcp_gateway.actors.messages.lifecycle import ActorCrashed, ActorFinished, ChildReady, StopRequested, Wiring
from mcp_gateway.actors.messages.supervision import (
    ChildRestarted,
    ChildRestartRefused,
    RestartChildRequested,
    SnapshotRequested,
    SnapshotTaken,
    SupervisionSnapshot,
)
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.actors.runtime.thespian_hardening import ChildProcess, create_child

from .restart_plan import (
    ChildSpec,
    Escalate,
    ExitReason,
    ExitSupervisor,
    ForgetChild,
    Instruction,
    Phase,
    RequestFailed,
    RestartIntensity,
    RoundCause,
    RoundFinished,
    StartChild,
    StopChild,
    Strategy,
    SupervisionState,
)

START_POLL_S = 0.1  # how often a process that is not ready is looked at: Thespian tells of no end before it has connected
EXIT_POLL_S = 0.005  # how often a process that has said goodbye is looked at until it is gone
GOODBYE_BELIEVED_S = 1.0  # a live process is taken for leaving this long without any other sign of it
NESTED_SNAPSHOT_S = 1.0  # a supervisor below must answer within this time, or its children are left out

# ---- bookkeeping


@attrs.define(kw_only=True)
class _LiveChild:
    """One incarnation that has been created and is not known to be gone."""

    spec: ChildSpec
    incarnation: int
    created_as: ActorAddress  # what createActor returned: Thespian uses it until the child has reported
    address: ActorAddress  # what others may use, from ChildReady on
    process: ChildProcess | None
    started_at_s: float
    reason: ExitReason = ExitReason.KILLED
    exit_text: str | None = None
    is_stop_asked: bool = False
    is_kill_sent: bool = False


@attrs.define(kw_only=True)
class _Snapshot:
    """A snapshot that waits for supervisors below: {short name: rows below it, None while unanswered}."""

    request_id: str
    asker: ActorAddress
    answers: dict[str, tuple[SupervisionSnapshot, ...] | None]


class Supervisor(GatewayActor):
    """Keeps its children as their specs say, in the manner of an OTP supervisor; ready when all of them are.

    Subclasses give `strategy`, `intensity` and `child_specs`, and may add children at run time. On a multiprocess base
    every child is a process; a supervisor there owns no event loop, because it forks.

    Receives  Wiring, StopRequested (its supervisor), ChildReady, ActorCrashed, ActorFinished (children),
              SnapshotRequested, RestartChildRequested
    Sends     Wiring, StopRequested (children), SnapshotTaken, ChildRestarted, ChildRestartRefused
    On crash  its children end with it, last started first
    """

    IS_READY_WHEN_WIRED: ClassVar[bool] = False

    strategy: ClassVar[Strategy] = Strategy.ONE_FOR_ONE
    intensity: ClassVar[RestartIntensity] = RestartIntensity()

    def __init__(self) -> None:
        super().__init__()
        self._state: SupervisionState | None = None
        self._live: dict[str, _LiveChild] = {}  # by short name
        self._last_exit_texts: dict[str, str] = {}  # by short name
        self._requests: dict[str, ActorAddress] = {}  # {request_id: asker}
        self._snapshots: dict[str, tuple[_Snapshot, str]] = {}  # {question_id: (what waits, short name asked)}
        self._snapshot_count = 0
        self._instructions: deque[Instruction] = deque()
        self._is_carrying_out = False
        self._deadlines_s: dict[tuple[str, str, int], float] = {}  # {(what, short name or question, incarnation): time}
        self._alarm_s: float | None = None  # when the one timer for all deadlines fires
        self._born_s = self.monotonic_s()

    # ---- what a supervisor overrides

    def child_specs(self) -> Sequence[ChildSpec]:
        """The children to start, in order; `self.arguments` is set."""
        return ()

    def child_full_name(self, spec: ChildSpec) -> str:
        """The name by which the child knows itself and the status prints it; unique in the node."""
        return f"{self.name}/{spec.name}"

    def child_addresses(self, spec: ChildSpec) -> dict[str, ActorAddress]:
        """{short name: address} of the siblings before it that run, and "supervisor"."""
        addresses: dict[str, ActorAddress] = {}
        for name in self.supervision.names:
            if name == spec.name:
                break
            if (address := self.child_address(name)) is not None:
                addresses[name] = address
        addresses["supervisor"] = self.myAddress
        return addresses

    def on_children_changed(self) -> None:
        """React to the end of a round: all children it started are ready, those it removed are gone."""

    def on_child_gone(self, spec: ChildSpec, pid: int | None) -> None:
        """Hook: an incarnation has ended, for whatever reason. pid: of the process that it was; None in-process."""

    def on_child_event(self, kind: str, name: str, reason_text: str) -> None:
        """Publish what has happened: "child_exited" (unasked), "restarted" (origin of the round), "escalated" (name is "")."""

    def on_escalation(self) -> None:
        """React to giving up; the children are stopped next, then this actor ends."""

    # ---- what a supervisor uses

    @property
    def supervision(self) -> SupervisionState:
        """Names, phases and incarnations of the children."""
        if self._state is None:
            raise RuntimeError("the supervisor has not been wired")
        return self._state

    def child_address(self, name: str) -> ActorAddress | None:
        """Where the child called that gets its mail; None unless it is ready."""
        live = self._live.get(name)
        return live.address if live is not None and self.supervision.phase(name) is Phase.RUNNING else None

    def child_mailbox(self, name: str) -> ActorAddress | None:
        """Where a child gets its mail that starts, runs or is being stopped; None while it is down."""
        live = self._live.get(name)
        return None if live is None else live.address

    def child_pid(self, name: str) -> int | None:
        """The process the child runs in; None while it is down."""
        live = self._live.get(name)
        if live is None:
            return None
        return live.process.pid if live.process is not None else os.getpid()

    def start_child(self, spec: ChildSpec) -> None:
        """Add a child and start it, after the round under way; `on_children_changed` follows.

        Raises: ValueError when the name is taken.
        """
        self._carry_out(self.supervision.add_child(spec))

    def stop_child(self, name: str) -> None:
        """Stop a child and forget it, after the round under way; `on_children_changed` follows. Unknown names are ignored."""
        self._carry_out(self.supervision.remove_child(name))

    def restart_child(self, name: str) -> None:
        """Restart a child in good order; not counted as a crash. Unknown names are ignored."""
        self._carry_out(self.supervision.restart_child(name))

    def kill_child(self, name: str, reason_text: str) -> None:
        """End a child that hangs, without asking it; it is then restarted as its spec says."""
        if (live := self._live.get(name)) is not None:
            live.exit_text = reason_text
            self._kill(live)

    # ---- wiring

    def on_wired(self) -> None:
        """Start the children; a subclass that overrides this calls it last."""
        specs = self.child_specs()
        self._state = SupervisionState(strategy=self.strategy, intensity=self.intensity, specs=specs)
        self._carry_out(self._state.start())

    # ---- children report

    def receiveMsg_ChildReady(self, message: ChildReady, sender: ActorAddress) -> None:
        live = self._live_by_full_name(message.name, message.incarnation)
        if live is None:
            return  # of an incarnation that has been given up
        live.address = sender
        self._unwatch("start", live)
        self._unwatch("starting", live)
        self._carry_out(self.supervision.child_ready(live.spec.name, live.incarnation))

    def receiveMsg_ActorCrashed(self, message: ActorCrashed, sender: ActorAddress) -> None:
        if (live := self._live_by_full_name(message.name, message.incarnation)) is not None:
            live.reason, live.exit_text = ExitReason.CRASHED, message.error_text

    def receiveMsg_ActorFinished(self, message: ActorFinished, sender: ActorAddress) -> None:
        if (live := self._live_by_full_name(message.name, message.incarnation)) is not None:
            live.reason, live.exit_text = ExitReason.NORMAL, "finished"

    def receiveMsg_ChildActorExited(self, message: ChildActorExited, sender: ActorAddress) -> None:
        child = message.childAddress
        live = next((each for each in self._live.values() if each.address == child or each.created_as == child), None)
        if live is None:
            return  # the second notice: Thespian sends one when the actor leaves and one when its process is gone
        if live.process is not None and live.process.is_alive():
            # Its successor must not meet it: wait until the process has let go of its files and ports.
            self._watch("goodbye", live, self._goodbye_s(live))
            self._watch("gone", live, EXIT_POLL_S)
        else:
            self._child_is_gone(live)

    # ---- requests

    def receiveMsg_StopRequested(self, message: StopRequested, sender: ActorAddress) -> None:
        if self._state is None:
            super().receiveMsg_StopRequested(message, sender)
        else:
            self._carry_out(self._state.stop())

    def receiveMsg_RestartChildRequested(self, message: RestartChildRequested, sender: ActorAddress) -> None:
        self._requests[message.request_id] = sender
        self._carry_out(self.supervision.restart_child(message.name, message.request_id))

    def receiveMsg_SnapshotRequested(self, message: SnapshotRequested, sender: ActorAddress) -> None:
        below = {
            name: address
            for name, live in self._live.items()
            if issubclass(live.spec.actor_class, Supervisor) and (address := self.child_address(name)) is not None
        }
        pending = _Snapshot(request_id=message.request_id, asker=sender, answers=dict.fromkeys(below))
        if not below:
            self._answer_snapshot(pending)
            return
        for name, address in below.items():
            self._snapshot_count += 1
            question_id = f"snapshot {self._snapshot_count}"
            self._snapshots[question_id] = (pending, name)
            self.send(address, SnapshotRequested(request_id=question_id))
            self._set_deadline("snapshot", question_id, 0, NESTED_SNAPSHOT_S)

    def receiveMsg_SnapshotTaken(self, message: SnapshotTaken, sender: ActorAddress) -> None:
        self._deadlines_s.pop(("snapshot", message.request_id, 0), None)
        self._take_nested_snapshot(message.request_id, message.snapshot.children)

    def snapshot(self) -> SupervisionSnapshot:
        """This supervisor and its children as of now, without what is below them."""
        now_s = self.monotonic_s()
        rows = []
        for name in self.supervision.names if self._state is not None else ():
            live, incarnation = self._live.get(name), self.supervision.incarnation(name)
            rows.append(
                SupervisionSnapshot(
                    name=self.child_full_name(self.supervision.spec(name)),
                    pid=self.child_pid(name),
                    incarnation=incarnation,
                    uptime_s=now_s - live.started_at_s if live is not None else 0.0,
                    restarts=max(0, incarnation - 1),
                    is_ready=self.supervision.phase(name) is Phase.RUNNING,
                    last_exit_text=self._last_exit_texts.get(name),
                )
            )
        return SupervisionSnapshot(
            name=self.name,
            pid=os.getpid(),
            incarnation=self.incarnation,
            uptime_s=now_s - self._born_s,
            restarts=max(0, self.incarnation - 1),
            children=tuple(rows),
        )

    # ---- timers

    def receiveTimer_deadline(self, _payload: object) -> None:
        self._alarm_s = None
        now_s = self.monotonic_s()
        for key in [key for key, due_s in self._deadlines_s.items() if due_s <= now_s]:
            what, name, incarnation = key
            self._deadlines_s.pop(key, None)
            live = self._live.get(name)
            if what == "snapshot":
                self._take_nested_snapshot(name, ())
            elif live is not None and live.incarnation == incarnation:
                self._deadline_passed(what, live)
        self._arm()

    # ---- instructions

    def _carry_out(self, instructions: list[Instruction]) -> None:
        """Carry out in order; what a hook causes meanwhile comes after what was decided before it."""
        self._instructions.extend(instructions)
        if self._is_carrying_out:
            return
        self._is_carrying_out = True
        while self._instructions:
            each = self._instructions.popleft()
            match each:
                case StartChild():
                    self._start(each)
                case StopChild():
                    self._stop(each)
                case ForgetChild():
                    self._last_exit_texts.pop(each.name, None)
                    self._forget_dead()
                    self.on_children_changed()
                case RoundFinished():
                    self._round_finished(each)
                case RequestFailed():
                    self._answer(each.request_id, ChildRestartRefused(request_id=each.request_id, error_text=each.error_text))
                case Escalate():
                    self.log(logging.ERROR, f"gives up: {each.reason_text}")
                    self.on_child_event("escalated", "", each.reason_text)
                    self.on_escalation()
                case ExitSupervisor():
                    self._exit(each.reason_text)
        self._is_carrying_out = False  # an error on the way ends this actor, so nothing needs to reset it

    def _start(self, instruction: StartChild) -> None:
        spec, incarnation = instruction.spec, instruction.incarnation
        address, process = create_child(self, spec.actor_class)
        live = _LiveChild(
            spec=spec,
            incarnation=incarnation,
            created_as=address,
            address=address,
            process=process,
            started_at_s=self.monotonic_s(),
        )
        self._live[spec.name] = live
        self._watch("start", live, spec.start_timeout_s)
        if process is not None:
            self._watch("starting", live, START_POLL_S)
        wiring = Wiring(
            name=self.child_full_name(spec),
            incarnation=incarnation,
            addresses=self.child_addresses(spec),
            runtime=self.runtime,
            arguments=spec.arguments,
        )
        self.send(address, wiring)

    def _stop(self, instruction: StopChild) -> None:
        live = self._live[instruction.spec.name]
        live.is_stop_asked = True
        self._unwatch("start", live)
        is_ours = issubclass(live.spec.actor_class, GatewayActor)
        self.send(live.address, StopRequested() if is_ours else ActorExitRequest())
        self._watch("stop", live, live.spec.shutdown_timeout_s)

    def _kill(self, live: _LiveChild) -> None:
        live.is_kill_sent = True
        if live.process is None:
            self.send(live.address, ActorExitRequest())  # cannot be refused in-process
        else:
            live.process.kill()
            self._watch("gone", live, EXIT_POLL_S)

    def _round_finished(self, round_: RoundFinished) -> None:
        self._forget_dead()
        if round_.cause is RoundCause.INITIAL:
            self.announce_ready()
        elif round_.origin is not None and round_.cause in {RoundCause.RESTART, RoundCause.ORDERED}:
            self.log(logging.WARNING, f"{round_.cause.value}: {', '.join(round_.started)}")
            text = self._last_exit_texts.get(round_.origin, "") if round_.cause is RoundCause.RESTART else "on request"
            self.on_child_event("restarted", round_.origin, text)
        self.on_children_changed()
        for request_id in round_.request_ids:
            self._answer(request_id, ChildRestarted(request_id=request_id, started=round_.started))

    def _exit(self, reason_text: str | None) -> None:
        if reason_text is not None and (supervisor := self.addresses.get("supervisor")) is not None:
            self.send(supervisor, ActorCrashed(name=self.name, incarnation=self.incarnation, error_text=reason_text))
        self.send(self.myAddress, ActorExitRequest())

    def _leave(self) -> None:
        # Whoever asks for the exit directly, without StopRequested, gives no time to wait: only the order is kept.
        for live in reversed(self._live.values()):
            self.send(live.address, ActorExitRequest())
        super()._leave()

    # ---- ends of children

    def _child_is_gone(self, live: _LiveChild) -> None:
        name = live.spec.name
        if self._live.get(name) is not live:
            return
        del self._live[name]
        self.on_child_gone(live.spec, live.process.pid if live.process is not None else None)
        for key in [key for key in self._deadlines_s if key[1:] == (name, live.incarnation)]:
            del self._deadlines_s[key]
        text = live.exit_text or (live.process.end_text() if live.process is not None else "ended without a word")
        if live.is_stop_asked:
            text = "stopped" if not live.is_kill_sent else f"killed: did not stop within {live.spec.shutdown_timeout_s:g} s"
        self._last_exit_texts[name] = text
        if not live.is_stop_asked:
            self.log(logging.WARNING, f"{name} ended: {text}", incarnation=live.incarnation)
            self.on_child_event("child_exited", name, text)
        self._carry_out(self.supervision.child_exited(name, live.incarnation, live.reason, self.monotonic_s()))

    def _deadline_passed(self, what: str, live: _LiveChild) -> None:
        if what == "start":
            live.exit_text = f"not ready within {live.spec.start_timeout_s:g} s"
            self._kill(live)
        elif what == "stop":
            self._kill(live)
        elif what == "starting":
            if live.process is not None and live.process.is_alive():
                self._watch("starting", live, START_POLL_S)
            else:
                self._child_is_gone(live)
        elif what == "gone":
            if live.process is not None and live.process.is_alive():
                self._watch("gone", live, EXIT_POLL_S)
            else:
                self._child_is_gone(live)
        elif what == "goodbye":
            if live.is_stop_asked or live.reason is not ExitReason.KILLED:
                self._kill(live)
            else:  # the notice was about an earlier actor on the same port
                self._unwatch("gone", live)

    def _goodbye_s(self, live: _LiveChild) -> float:
        if live.is_stop_asked or live.reason is not ExitReason.KILLED:
            return live.spec.shutdown_timeout_s
        return GOODBYE_BELIEVED_S

    # ---- deadlines: one timer for all, because Thespian's cannot be cancelled and would pile up

    def _set_deadline(self, what: str, name: str, incarnation: int, delay_s: float) -> None:
        self._deadlines_s[what, name, incarnation] = self.monotonic_s() + delay_s
        self._arm()

    def _watch(self, what: str, live: _LiveChild, delay_s: float) -> None:
        self._set_deadline(what, live.spec.name, live.incarnation, delay_s)

    def _unwatch(self, what: str, live: _LiveChild) -> None:
        self._deadlines_s.pop((what, live.spec.name, live.incarnation), None)

    def _arm(self) -> None:
        due_s = min(self._deadlines_s.values(), default=None)
        if due_s is not None and (self._alarm_s is None or due_s < self._alarm_s):
            self._alarm_s = due_s
            self.start_timer("deadline", max(0.0, due_s - self.monotonic_s()))

    # ---- small parts

    def _live_by_full_name(self, full_name: str, incarnation: int) -> _LiveChild | None:
        for live in self._live.values():
            if live.incarnation == incarnation and self.child_full_name(live.spec) == full_name:
                return live
        return None

    def _answer(self, request_id: str, answer: object) -> None:
        if (asker := self._requests.pop(request_id, None)) is not None:
            self.send(asker, answer)

    def _take_nested_snapshot(self, question_id: str, rows: tuple[SupervisionSnapshot, ...]) -> None:
        if (found := self._snapshots.pop(question_id, None)) is None:
            return  # too late
        pending, name = found
        pending.answers[name] = rows
        if all(each is not None for each in pending.answers.values()):
            self._answer_snapshot(pending)

    def _answer_snapshot(self, pending: _Snapshot) -> None:
        own = self.snapshot()
        names = self.supervision.names if self._state is not None else ()
        children = tuple(
            attrs.evolve(row, children=pending.answers.get(name) or ()) for name, row in zip(names, own.children, strict=True)
        )
        self.send(pending.asker, SnapshotTaken(request_id=pending.request_id, snapshot=attrs.evolve(own, children=children)))

    def _forget_dead(self) -> None:
        if self.runtime is not None:
            self.runtime.forget_dead()
