"""The restart plan against the rules of OTP's supervisor, one case per rule, then against random histories."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.supervision.restart_plan import (
    ChildSpec,
    Escalate,
    ExitReason,
    ExitSupervisor,
    ForgetChild,
    Instruction,
    Phase,
    RequestFailed,
    Restart,
    RestartIntensity,
    RoundCause,
    RoundFinished,
    StartChild,
    StopChild,
    Strategy,
    SupervisionState,
)

CRASHED, KILLED, NORMAL = ExitReason.CRASHED, ExitReason.KILLED, ExitReason.NORMAL


def spec(name: str, restart: Restart = Restart.PERMANENT) -> ChildSpec:
    return ChildSpec(name=name, actor_class=object, restart=restart)


def short(instructions: list[Instruction]) -> list[str]:
    """The instructions as words: "start b#2", "stop c#1", "escalate", "exit", "forget d", "done"."""
    words = []
    for each in instructions:
        match each:
            case StartChild():
                words.append(f"start {each.spec.name}#{each.incarnation}")
            case StopChild():
                words.append(f"stop {each.spec.name}#{each.incarnation}")
            case ForgetChild():
                words.append(f"forget {each.name}")
            case RoundFinished():
                words.append("done")
            case RequestFailed():
                words.append("failed")
            case Escalate():
                words.append("escalate")
            case ExitSupervisor():
                words.append("exit")
    return words


class ScriptedSupervisor:
    """Carries out instructions at once and keeps them, unless the child is named in `hangs`."""

    def __init__(self, strategy: Strategy, *specs: ChildSpec, max_restarts: int = 5, period_s: float = 10.0) -> None:
        intensity = RestartIntensity(max_restarts=max_restarts, period_s=period_s)
        self.state = SupervisionState(strategy=strategy, intensity=intensity, specs=specs)
        self.hangs: set[str] = set()
        self.done: list[Instruction] = []

    def carry_out(self, instructions: list[Instruction]) -> list[str]:
        """Carry out and return, as words, all that was done."""
        todo, done = list(instructions), []
        while todo:
            instruction = todo.pop(0)
            done.append(instruction)
            if isinstance(instruction, StartChild) and instruction.spec.name not in self.hangs:
                todo += self.state.child_ready(instruction.spec.name, instruction.incarnation)
            elif isinstance(instruction, StopChild) and instruction.spec.name not in self.hangs:
                todo += self.state.child_exited(instruction.spec.name, instruction.incarnation, KILLED, 0.0)
        self.done += done
        return short(done)

    def started(self) -> ScriptedSupervisor:
        self.carry_out(self.state.start())
        return self

    def exit(self, name: str, reason: ExitReason = CRASHED, now_s: float = 0.0) -> list[str]:
        return self.carry_out(self.state.child_exited(name, self.state.incarnation(name), reason, now_s))


def chain(*names: str, strategy: Strategy = Strategy.REST_FOR_ONE) -> ScriptedSupervisor:
    return ScriptedSupervisor(strategy, *map(spec, names)).started()


# ---- start and stop


def test_children_start_in_order_each_after_the_one_before_is_ready() -> None:
    """OTP: start_link of a child returns before the next is started."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, spec("a"), spec("b"))
    supervisor.hangs = {"a"}
    assert supervisor.carry_out(supervisor.state.start()) == ["start a#1"]
    assert supervisor.carry_out(supervisor.state.child_ready("a", 1)) == ["start b#1", "done"]


def test_children_stop_in_reverse_order_each_after_the_one_before_is_gone() -> None:
    """OTP: terminate_children goes from the last started to the first."""
    supervisor = chain("a", "b", "c")
    assert supervisor.carry_out(supervisor.state.stop()) == ["stop c#1", "stop b#1", "stop a#1", "exit"]
    assert supervisor.done[-1] == ExitSupervisor(reason_text=None)


def test_a_child_that_cannot_start_at_first_ends_the_supervisor_after_stopping_the_others() -> None:
    """OTP: init/1 of the supervisor fails with failed_to_start_child, started children are terminated."""
    supervisor = ScriptedSupervisor(Strategy.ONE_FOR_ONE, spec("a"), spec("b"), spec("c"))
    supervisor.hangs = {"b"}
    supervisor.carry_out(supervisor.state.start())
    assert supervisor.exit("b") == ["escalate", "stop a#1", "exit"]


def test_a_stop_during_a_round_gives_the_round_up() -> None:
    """Ours: OTP would finish the round first."""
    supervisor = chain("a", "b", "c")
    supervisor.hangs = {"b"}
    assert supervisor.exit("b") == ["stop c#1", "start b#2"]
    supervisor.hangs = set()
    assert supervisor.carry_out(supervisor.state.stop()) == ["stop b#2", "stop a#1", "exit"]
    assert supervisor.state.stop() == []


# ---- restart types


@pytest.mark.parametrize(
    ("restart", "reason", "expected"),
    [
        (Restart.PERMANENT, NORMAL, ["start a#2", "done"]),
        (Restart.PERMANENT, CRASHED, ["start a#2", "done"]),
        (Restart.PERMANENT, KILLED, ["start a#2", "done"]),
        (Restart.TRANSIENT, NORMAL, []),
        (Restart.TRANSIENT, CRASHED, ["start a#2", "done"]),
        (Restart.TRANSIENT, KILLED, ["start a#2", "done"]),
        (Restart.TEMPORARY, NORMAL, ["forget a"]),
        (Restart.TEMPORARY, CRASHED, ["forget a"]),
        (Restart.TEMPORARY, KILLED, ["forget a"]),
    ],
)
def test_the_restart_type_decides_which_end_calls_for_a_restart(
    restart: Restart, reason: ExitReason, expected: list[str]
) -> None:
    """OTP: permanent always, transient only after an abnormal end, temporary never (its spec is deleted)."""
    supervisor = ScriptedSupervisor(Strategy.ONE_FOR_ONE, spec("a", restart)).started()
    assert supervisor.exit("a", reason) == expected


def test_a_temporary_child_taken_down_with_a_sibling_is_not_started_again() -> None:
    """OTP: "temporary ... even when the supervisor's restart strategy is rest_for_one and a sibling's death ..."."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, spec("a"), spec("b", Restart.TEMPORARY), spec("c")).started()
    assert supervisor.exit("a") == ["stop c#1", "stop b#1", "forget b", "start a#2", "start c#2", "done"]


def test_a_finished_transient_child_starts_again_with_the_rest() -> None:
    """OTP: start_children starts every spec after the one that ended."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, spec("a"), spec("b", Restart.TRANSIENT)).started()
    supervisor.exit("b", NORMAL)
    assert supervisor.exit("a") == ["start a#2", "start b#2", "done"]


# ---- strategies


def test_one_for_one_restarts_only_the_child_that_ended() -> None:
    """OTP: one_for_one."""
    supervisor = chain("a", "b", "c", strategy=Strategy.ONE_FOR_ONE)
    assert supervisor.exit("b") == ["start b#2", "done"]


def test_rest_for_one_stops_the_later_children_in_reverse_and_starts_from_the_one_that_ended() -> None:
    """OTP: rest_for_one."""
    supervisor = chain("a", "b", "c", "d")
    assert supervisor.exit("b") == ["stop d#1", "stop c#1", "start b#2", "start c#2", "start d#2", "done"]
    assert supervisor.done[-1] == RoundFinished(cause=RoundCause.RESTART, origin="b", started=("b", "c", "d"))


# ---- intensity


def test_more_restarts_than_the_intensity_within_the_period_escalate() -> None:
    """OTP: "if more than MaxR restarts occur within MaxT seconds, the supervisor terminates all children and itself"."""
    supervisor = ScriptedSupervisor(Strategy.ONE_FOR_ONE, spec("a"), spec("b"), max_restarts=2, period_s=10.0).started()
    assert supervisor.exit("a", now_s=0.0) == ["start a#2", "done"]
    assert supervisor.exit("b", now_s=1.0) == ["start b#2", "done"]
    assert supervisor.exit("a", now_s=10.0) == ["escalate", "stop b#2", "exit"]
    assert supervisor.done[-1] == ExitSupervisor(reason_text="more than 2 restarts in 10 s, last: a")


def test_restarts_older_than_the_period_are_forgotten() -> None:
    """OTP: in_period/3; the restart at 0 s is more than 10 s before the one at 10.1 s."""
    supervisor = ScriptedSupervisor(Strategy.ONE_FOR_ONE, spec("a"), max_restarts=2, period_s=10.0).started()
    for now_s in (0.0, 1.0, 10.1, 11.1, 20.2):
        assert supervisor.exit("a", now_s=now_s)[-1] == "done"


def test_intensity_zero_allows_no_restart() -> None:
    """OTP: intensity 0."""
    supervisor = ScriptedSupervisor(Strategy.ONE_FOR_ONE, spec("a"), max_restarts=0).started()
    assert supervisor.exit("a") == ["escalate", "exit"]


def test_a_whole_rest_for_one_round_counts_as_one_restart() -> None:
    """OTP: add_restart is called once per exit, not per child."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, *map(spec, "abcdef"), max_restarts=1).started()
    assert supervisor.exit("a")[-1] == "done"


def test_a_restart_that_fails_is_tried_again_and_counts_each_time() -> None:
    """OTP: try_again_restart goes through add_restart again; those of the round that are up stay up."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, *map(spec, "abc"), max_restarts=2).started()
    supervisor.exit("a", now_s=-100.0)
    supervisor.hangs = {"c"}
    supervisor.exit("b")
    supervisor.hangs = {"b", "c"}
    assert supervisor.exit("c") == ["start b#3"]
    assert supervisor.exit("b") == ["start b#4"]
    assert supervisor.exit("b") == ["escalate", "stop a#2", "exit"]


# ---- notices that overlap


def test_a_second_notice_of_the_same_end_is_ignored() -> None:
    """Ours: Thespian says ChildActorExited twice; OTP's monitors say it once."""
    supervisor = chain("a", "b")
    assert supervisor.exit("a")[-1] == "done"
    assert supervisor.state.child_exited("a", 1, KILLED, 0.0) == []


def test_a_late_ready_report_of_an_earlier_incarnation_is_ignored() -> None:
    supervisor = chain("a")
    supervisor.hangs = {"a"}
    supervisor.exit("a")
    assert supervisor.state.child_ready("a", 1) == []
    assert supervisor.state.phase("a") is Phase.STARTING


def test_the_end_of_a_child_that_is_being_stopped_is_no_second_crash() -> None:
    """OTP: terminate_children unlinks; whatever its reason, the end of such a child counts as stopped."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, *map(spec, "abc"), max_restarts=1).started()
    supervisor.hangs = {"c"}
    assert supervisor.exit("a") == ["stop c#1"]
    assert supervisor.exit("b") == []
    supervisor.hangs = set()
    assert supervisor.exit("c", CRASHED) == ["start a#2", "start b#2", "start c#2", "done"]


def test_an_earlier_child_that_ends_during_a_round_is_judged_after_it() -> None:
    """OTP: the EXIT message waits in the supervisor's mailbox."""
    supervisor = chain("a", "b", "c")
    supervisor.hangs = {"b"}
    assert supervisor.exit("b") == ["stop c#1", "start b#2"]
    assert supervisor.exit("a") == []
    supervisor.hangs = set()
    done = supervisor.carry_out(supervisor.state.child_ready("b", 2))
    assert done == ["start c#2", "done", "stop c#2", "stop b#2", "start a#2", "start b#3", "start c#3", "done"]


def test_a_child_that_ends_again_while_later_ones_still_start_is_restarted_after_the_round() -> None:
    supervisor = chain("a", "b")
    supervisor.hangs = {"b"}
    assert supervisor.exit("a") == ["stop b#1"]
    assert supervisor.exit("b") == ["start a#2", "start b#2"]
    assert supervisor.exit("a") == []
    supervisor.hangs = set()
    assert supervisor.carry_out(supervisor.state.child_ready("b", 2)) == [*["done", "stop b#2", "start a#3", "start b#3", "done"]]


# ---- requests


def test_a_restart_on_request_takes_the_later_ones_along_and_is_not_counted() -> None:
    """Ours, see restart_child."""
    supervisor = ScriptedSupervisor(Strategy.REST_FOR_ONE, *map(spec, "abc"), max_restarts=0).started()
    done = supervisor.carry_out(supervisor.state.restart_child("b", "r1"))
    assert done == ["stop c#1", "stop b#1", "start b#2", "start c#2", "done"]
    assert supervisor.done[-1] == RoundFinished(cause=RoundCause.ORDERED, origin="b", started=("b", "c"), request_ids=("r1",))


def test_a_restart_on_request_of_an_unknown_child_fails() -> None:
    assert short(chain("a").state.restart_child("z", "r1")) == ["failed"]


def test_a_child_added_at_run_time_starts_last_and_is_supervised() -> None:
    """OTP: start_child/2 adds to the end of the child list."""
    supervisor = chain("a")
    assert supervisor.carry_out(supervisor.state.add_child(spec("b"))) == ["start b#1", "done"]
    assert supervisor.exit("a") == ["stop b#1", "start a#2", "start b#2", "done"]


def test_a_child_added_at_run_time_that_cannot_start_is_forgotten() -> None:
    """OTP: start_child/2 returns the error and discards the spec."""
    supervisor = chain("a")
    supervisor.hangs = {"b"}
    supervisor.carry_out(supervisor.state.add_child(spec("b")))
    assert supervisor.exit("b") == ["forget b"]
    assert supervisor.state.names == ("a",)


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match="exists already"):
        chain("a").state.add_child(spec("a"))


def test_a_removed_child_is_stopped_and_its_name_is_free_again() -> None:
    """OTP: terminate_child/2, delete_child/2; the other children stay."""
    supervisor = chain("a", "b", "c")
    assert supervisor.carry_out(supervisor.state.remove_child("b")) == ["stop b#1", "forget b"]
    assert supervisor.carry_out(supervisor.state.add_child(spec("b"))) == ["start b#1", "done"]


def test_a_replaced_spec_is_used_from_the_next_start_on() -> None:
    """Ours: OTP has code_change for that, which we have no use for."""
    supervisor = chain("a", "b")
    newer = attrs.evolve(spec("a"), arguments="newer")
    supervisor.state.replace_spec(newer)
    supervisor.exit("a")
    started = [each.spec for each in supervisor.done if isinstance(each, StartChild) and each.spec.name == "a"]
    assert started == [spec("a"), newer]
    with pytest.raises(KeyError):
        supervisor.state.replace_spec(spec("nobody"))


# ---- properties

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["exit", "ready", "gone", "restart", "add", "remove", "stop"]),
        st.integers(0, 4),
        st.sampled_from(list(ExitReason)),
        st.floats(0.0, 3.0),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(
    strategy=st.sampled_from(list(Strategy)),
    restarts=st.lists(st.sampled_from(list(Restart)), min_size=1, max_size=4),
    events=EVENTS,
)
def test_no_history_starts_a_live_child_or_starts_and_stops_at_once(
    strategy: Strategy, restarts: list[Restart], events: list[tuple[str, int, ExitReason, float]]
) -> None:
    """In any order of events: one step at a time, no child twice alive, nothing started while ending, the end is reached."""
    specs = [spec(f"c{index}", restart) for index, restart in enumerate(restarts)]
    state = SupervisionState(strategy=strategy, intensity=RestartIntensity(max_restarts=3, period_s=5.0), specs=specs)
    alive: dict[str, tuple[int, str]] = {}  # name -> (incarnation, "starting" | "running" | "stopping")
    is_ending = is_over = False

    def check(instructions: list[Instruction]) -> None:
        nonlocal is_ending, is_over
        is_ending = is_ending or any(isinstance(each, Escalate) for each in instructions)
        for each in instructions:
            assert not is_over
            if isinstance(each, StartChild):
                assert each.spec.name not in alive
                assert not is_ending
                alive[each.spec.name] = (each.incarnation, "starting")
            elif isinstance(each, StopChild):
                assert alive[each.spec.name][0] == each.incarnation
                alive[each.spec.name] = (each.incarnation, "stopping")
            elif isinstance(each, ForgetChild):
                assert each.name not in alive
            elif isinstance(each, ExitSupervisor):
                assert not alive
                is_over = True
        if not is_ending:
            assert sum(phase != "running" for _, phase in alive.values()) <= 1

    def end(name: str, reason: ExitReason, now_s: float) -> None:
        incarnation, _ = alive.pop(name)
        check(state.child_exited(name, incarnation, reason, now_s))

    check(state.start())
    now_s = 0.0
    for kind, index, reason, step_s in events:
        if is_over:
            break
        now_s += step_s
        name = f"c{index}"
        phase = alive.get(name, (0, "down"))[1]
        if kind == "exit" and phase in {"starting", "running"}:
            end(name, reason, now_s)
        elif kind == "ready" and phase == "starting":
            alive[name] = (alive[name][0], "running")
            check(state.child_ready(name, alive[name][0]))
        elif kind == "gone" and phase == "stopping":
            end(name, reason, now_s)
        elif kind == "restart":
            check(state.restart_child(name))
        elif kind == "add" and name not in state.names:
            check(state.add_child(spec(name)))
        elif kind == "remove":
            check(state.remove_child(name))
        elif kind == "stop":
            is_ending = True
            check(state.stop())
    is_ending = True
    check(state.stop())
    while alive:
        end(next(name for name, (_, phase) in alive.items() if phase == "stopping"), KILLED, now_s)
    assert is_over
    assert state.start() == []
