"""What a supervisor does when a child ends: child specs, restart rules, restart intensity, ordered rounds.

Pure: the caller tells what happened and when, and is told what to do next. Stops and starts go one after the other, so the
answer to one event is at most the next step; the caller reports the end of that step as the next event.

Source: OTP `supervisor` (module reference and supervisor.erl, OTP 26) unless a rule says "ours".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Any

import attrs
from attrs.validators import ge, gt, instance_of, matches_re


class Restart(Enum):
    """Which ends of a child call for a restart. Source: OTP child_spec(), key `restart`."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # only after an abnormal end
    TEMPORARY = "temporary"  # never, not even when an earlier sibling takes it down


class Strategy(Enum):
    """Who is restarted together with a child. Source: OTP sup_flags(), key `strategy`."""

    ONE_FOR_ONE = "one_for_one"  # nobody
    REST_FOR_ONE = "rest_for_one"  # all that were started after it


class ExitReason(Enum):
    """How a child ended that nobody had asked to stop."""

    NORMAL = "normal"  # it said that its work is done
    CRASHED = "crashed"  # it reported an unhandled error
    KILLED = "killed"  # it ended without a word: a signal, a segfault, the out-of-memory killer

    @property
    def is_abnormal(self) -> bool:
        return self is not ExitReason.NORMAL


@attrs.frozen(kw_only=True)
class ChildSpec:
    """How to start, restart and stop one child.

    name:               short and unique among its siblings ("router"); they find the child's address under it.
    actor_class:        a GatewayActor class; importable by name when the child is a process.
    shutdown_timeout_s: after a stop request the child may take this long, then it is killed.
    start_timeout_s:    the child must report ready within this time; later it is killed, which counts as an end of KILLED.
    arguments:          handed to the child in its wiring.
    """

    name: str = attrs.field(validator=matches_re(r"[^/\s]+"))
    actor_class: type = attrs.field(validator=instance_of(type))
    restart: Restart = attrs.field(default=Restart.PERMANENT, validator=instance_of(Restart))
    shutdown_timeout_s: float = attrs.field(default=5.0, validator=ge(0))
    start_timeout_s: float = attrs.field(default=10.0, validator=gt(0))
    arguments: Any = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class RestartIntensity:
    """More than max_restarts restarts within period_s seconds are too many. Source: OTP sup_flags(), `intensity`, `period`."""

    max_restarts: int = attrs.field(default=5, validator=ge(0))
    period_s: float = attrs.field(default=10.0, validator=gt(0))


# ---- instructions: what the caller must do, in the order given


@attrs.frozen(kw_only=True)
class StartChild:
    """Create the child and wire it; report child_ready, or child_exited when it ends or misses its start deadline."""

    spec: ChildSpec
    incarnation: int


@attrs.frozen(kw_only=True)
class StopChild:
    """Ask the child to stop, kill it after its shutdown timeout, report child_exited."""

    spec: ChildSpec
    incarnation: int


@attrs.frozen(kw_only=True)
class ForgetChild:
    """The child is gone for good and its spec with it.

    request_id: of the removal, if that was asked for.
    """

    name: str
    request_id: str | None = None


class RoundCause(Enum):
    INITIAL = "initial start"
    RESTART = "restart after an exit"
    ORDERED = "restart on request"
    ADDED = "child added"
    REMOVED = "child removed"
    STOP = "stop on request"
    ESCALATION = "escalation"


@attrs.frozen(kw_only=True)
class RoundFinished:
    """A round of stops and starts is over and all children it started are ready.

    origin:      the child that caused the round; None for the initial start.
    started:     names in start order.
    request_ids: requests that wanted this round.
    """

    cause: RoundCause
    origin: str | None
    started: tuple[str, ...]
    request_ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class RequestFailed:
    """A request cannot be met."""

    request_id: str
    error_text: str


@attrs.frozen(kw_only=True)
class Escalate:
    """Tell whom it concerns that this supervisor gives up; the stops and `ExitSupervisor` follow."""

    reason_text: str


@attrs.frozen(kw_only=True)
class ExitSupervisor:
    """All children are gone: end the supervisor itself, abnormally if reason_text is set."""

    reason_text: str | None = None


Instruction = StartChild | StopChild | ForgetChild | RoundFinished | RequestFailed | Escalate | ExitSupervisor


# ---- state


class Phase(Enum):
    DOWN = "down"
    STARTING = "starting"  # created, not ready
    RUNNING = "running"
    STOPPING = "stopping"  # asked to stop


@attrs.define(kw_only=True)
class _Child:
    spec: ChildSpec
    incarnation: int = 0
    phase: Phase = Phase.DOWN


@attrs.define(kw_only=True)
class _Round:
    """One stop-and-start sequence: `to_stop` in stop order first, then `to_start` in start order; heads are under way."""

    cause: RoundCause
    origin: str | None = None
    to_stop: deque[str] = attrs.field(factory=deque)
    to_start: deque[str] = attrs.field(factory=deque)
    started: list[str] = attrs.field(factory=list)
    forget_stopped: bool = False
    request_ids: tuple[str, ...] = ()
    reason_text: str | None = None


@attrs.frozen(kw_only=True)
class _Exited:
    name: str
    incarnation: int
    reason: ExitReason
    now_s: float


@attrs.frozen(kw_only=True)
class _RestartWanted:
    name: str
    request_id: str | None


@attrs.frozen(kw_only=True)
class _AdditionWanted:
    name: str


@attrs.frozen(kw_only=True)
class _RemovalWanted:
    name: str
    request_id: str | None


class SupervisionState:
    """The children of one supervisor, the round under way, the events that wait for its end, and the restart history.

    Every event method returns the instructions it causes, in order; an empty list means: nothing to do now.
    As OTP's supervisor reads no mail while it stops and starts children, events that arrive meanwhile wait and are judged
    afterwards. Only `stop` does not wait (ours: a child that is slow to start must not hold up the stop of the node).
    """

    def __init__(self, *, strategy: Strategy, intensity: RestartIntensity, specs: Iterable[ChildSpec]) -> None:
        self.strategy = strategy
        self.intensity = intensity
        self._children: dict[str, _Child] = {}  # in start order
        for spec in specs:
            self._enter(spec)
        self._round: _Round | None = None
        self._waiting: deque[_Exited | _RestartWanted | _AdditionWanted | _RemovalWanted] = deque()
        self._restarts_s: deque[float] = deque()  # times of the restarts within the period
        self._is_ending = False
        self._is_over = False

    # ---- what is asked

    @property
    def names(self) -> tuple[str, ...]:
        """Short names in start order, children that are down included."""
        return tuple(self._children)

    def spec(self, name: str) -> ChildSpec:
        """The child's spec; KeyError when there is no such child."""
        return self._children[name].spec

    def phase(self, name: str) -> Phase:
        return self._children[name].phase

    def incarnation(self, name: str) -> int:
        """0 before the first start."""
        return self._children[name].incarnation

    # ---- what happens

    def start(self) -> list[Instruction]:
        """Start all children in order; call once."""
        self._round = _Round(cause=RoundCause.INITIAL, to_start=deque(self._children))
        return self._advance()

    def child_ready(self, name: str, incarnation: int) -> list[Instruction]:
        """A child has reported ready; a report of an earlier incarnation changes nothing."""
        child = self._children.get(name)
        if child is None or child.incarnation != incarnation or child.phase is not Phase.STARTING:
            return []
        child.phase = Phase.RUNNING
        return self._advance()

    def child_exited(self, name: str, incarnation: int, reason: ExitReason, now_s: float) -> list[Instruction]:
        """A child has ended; a second notice of the same incarnation changes nothing (Thespian sends two)."""
        child = self._children.get(name)
        if child is None or child.incarnation != incarnation or child.phase is Phase.DOWN:
            return []
        phase, child.phase = child.phase, Phase.DOWN
        if phase is Phase.STARTING and self._round is not None and not self._is_ending:
            return self._start_failed(name, reason, now_s, self._round)
        if phase is Phase.RUNNING and not self._is_ending:
            self._waiting.append(_Exited(name=name, incarnation=incarnation, reason=reason, now_s=now_s))
        return self._advance()

    def restart_child(self, name: str, request_id: str | None = None) -> list[Instruction]:
        """Stop and start a child on request, under rest_for_one with those after it; not counted as a restart.

        Ours: OTP has terminate_child and restart_child, which leave the later siblings with an address of the dead.
        """
        self._waiting.append(_RestartWanted(name=name, request_id=request_id))
        return self._advance()

    def add_child(self, spec: ChildSpec) -> list[Instruction]:
        """Start one more child, after all others. Source: OTP supervisor:start_child/2.

        Raises: ValueError when the name is taken.
        """
        self._enter(spec)
        self._waiting.append(_AdditionWanted(name=spec.name))
        return self._advance()

    def remove_child(self, name: str, request_id: str | None = None) -> list[Instruction]:
        """Stop a child and forget its spec. Source: OTP supervisor:terminate_child/2 and delete_child/2."""
        self._waiting.append(_RemovalWanted(name=name, request_id=request_id))
        return self._advance()

    def replace_spec(self, spec: ChildSpec) -> None:
        """Start the child of that name by this spec from its next start on. KeyError when there is no such child."""
        self._children[spec.name].spec = spec

    def stop(self) -> list[Instruction]:
        """Stop all children in reverse order, then the supervisor itself; a round under way is given up."""
        if self._is_ending:
            return []
        self._end(RoundCause.STOP, None)
        return self._advance()

    # ---- rules

    def _enter(self, spec: ChildSpec) -> None:
        if spec.name in self._children:
            raise ValueError(f"a child named {spec.name!r} exists already")
        self._children[spec.name] = _Child(spec=spec)

    def _start_failed(self, name: str, reason: ExitReason, now_s: float, round_: _Round) -> list[Instruction]:
        """OTP: a failed initial start ends the supervisor; a failed restart is tried again and counts each time.

        Those of the round that are up already stay up; the retry goes on with the child that failed.
        """
        if round_.cause is RoundCause.INITIAL:
            return self._escalate(f"{name} could not be started ({reason.value})")
        if round_.cause is RoundCause.ADDED:
            self._round = None
            del self._children[name]
            return [ForgetChild(name=name), *self._advance()]
        if not self._may_restart(now_s):
            return self._escalate(self._too_many_text(name))
        return self._advance()

    def _judge_exit(self, event: _Exited) -> list[Instruction]:
        child = self._children.get(event.name)
        if child is None or child.incarnation != event.incarnation or child.phase is not Phase.DOWN:
            return []  # a round that ended in the meantime has taken care of it
        if child.spec.restart is Restart.TEMPORARY:
            del self._children[event.name]
            return [ForgetChild(name=event.name)]
        if child.spec.restart is Restart.TRANSIENT and not event.reason.is_abnormal:
            return []
        if not self._may_restart(event.now_s):
            return self._escalate(self._too_many_text(event.name), advance=False)
        self._round = self._round_from(event.name, RoundCause.RESTART, ())
        return []

    def _round_from(self, name: str, cause: RoundCause, request_ids: tuple[str, ...]) -> _Round:
        names = list(self._children)
        affected = names[names.index(name) :] if self.strategy is Strategy.REST_FOR_ONE else [name]
        # OTP (terminate_children): a temporary child that is taken down with the others is not started again.
        to_start = [each for each in affected if each == name or self.spec(each).restart is not Restart.TEMPORARY]
        return _Round(
            cause=cause, origin=name, to_stop=deque(reversed(affected)), to_start=deque(to_start), request_ids=request_ids
        )

    def _may_restart(self, now_s: float) -> bool:
        """Count one restart. Source: supervisor.erl add_restart/1: a restart exactly one period ago still counts."""
        self._restarts_s.append(now_s)
        while self._restarts_s[0] < now_s - self.intensity.period_s:
            self._restarts_s.popleft()
        return len(self._restarts_s) <= self.intensity.max_restarts

    def _too_many_text(self, name: str) -> str:
        return f"more than {self.intensity.max_restarts} restarts in {self.intensity.period_s:g} s, last: {name}"

    def _escalate(self, reason_text: str, *, advance: bool = True) -> list[Instruction]:
        self._end(RoundCause.ESCALATION, reason_text)
        return [Escalate(reason_text=reason_text), *(self._advance() if advance else [])]

    def _end(self, cause: RoundCause, reason_text: str | None) -> None:
        self._is_ending = True
        self._waiting.clear()
        self._round = _Round(cause=cause, to_stop=deque(reversed(self._children)), reason_text=reason_text)

    # ---- engine

    def _advance(self) -> list[Instruction]:
        """Go on until a step must be waited for or nothing is left to do."""
        todo: list[Instruction] = []
        while not self._is_over:
            round_ = self._round
            if round_ is None:
                if not self._waiting:
                    return todo
                todo += self._take_up(self._waiting.popleft())
            elif round_.to_stop:
                if not self._has_stopped(round_, todo):
                    return todo
            elif round_.to_start:
                if not self._has_started(round_, todo):
                    return todo
            elif self._is_ending:
                self._is_over = True
                return [*todo, ExitSupervisor(reason_text=round_.reason_text)]
            else:
                self._round = None
                if round_.cause is RoundCause.REMOVED:
                    todo.append(ForgetChild(name=str(round_.origin), request_id=next(iter(round_.request_ids), None)))
                else:
                    todo.append(
                        RoundFinished(
                            cause=round_.cause,
                            origin=round_.origin,
                            started=tuple(round_.started),
                            request_ids=round_.request_ids,
                        )
                    )
        return todo

    def _take_up(self, event: _Exited | _RestartWanted | _AdditionWanted | _RemovalWanted) -> list[Instruction]:
        if isinstance(event, _Exited):
            return self._judge_exit(event)
        if isinstance(event, _AdditionWanted):
            if event.name in self._children:
                self._round = _Round(cause=RoundCause.ADDED, origin=event.name, to_start=deque([event.name]))
            return []
        if event.name not in self._children:
            if event.request_id is None:
                return []
            return [RequestFailed(request_id=event.request_id, error_text=f"no child named {event.name!r}")]
        request_ids = () if event.request_id is None else (event.request_id,)
        if isinstance(event, _RestartWanted):
            self._round = self._round_from(event.name, RoundCause.ORDERED, request_ids)
        else:
            self._round = _Round(
                cause=RoundCause.REMOVED,
                origin=event.name,
                to_stop=deque([event.name]),
                forget_stopped=True,
                request_ids=request_ids,
            )
        return []

    def _has_stopped(self, round_: _Round, todo: list[Instruction]) -> bool:
        child = self._children.get(round_.to_stop[0])
        if child is None:
            round_.to_stop.popleft()
            return True
        if child.phase is Phase.DOWN:
            name = round_.to_stop.popleft()
            if round_.forget_stopped:
                del self._children[name]
            elif child.spec.restart is Restart.TEMPORARY and not self._is_ending and name not in round_.to_start:
                del self._children[name]
                todo.append(ForgetChild(name=name))
            return True
        if child.phase is not Phase.STOPPING:
            child.phase = Phase.STOPPING
            todo.append(StopChild(spec=child.spec, incarnation=child.incarnation))
        return False

    def _has_started(self, round_: _Round, todo: list[Instruction]) -> bool:
        child = self._children[round_.to_start[0]]
        if child.phase is Phase.RUNNING:
            round_.started.append(round_.to_start.popleft())
            return True
        if child.phase is Phase.DOWN:
            child.phase, child.incarnation = Phase.STARTING, child.incarnation + 1
            todo.append(StartChild(spec=child.spec, incarnation=child.incarnation))
        return False
