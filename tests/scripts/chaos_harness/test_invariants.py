"""Each invariant is broken by exactly what it forbids, and by nothing that a fault accounts for."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.chaos_harness.fault_kinds import ALONE, BACKENDS, DEMO, FAULTS, GRACE_S, KINDS, LEARN_S, PAIR
from mcp_gateway.scripts.chaos_harness.history import (
    CUT,
    LATE,
    OK,
    WRONG,
    Acknowledged,
    Asked,
    Ended,
    FaultBegan,
    FaultEnded,
    Following,
    History,
    Missed,
    Ran,
    Record,
    Recovered,
    Seen,
    SessionLost,
    Stopped,
    Weighed,
)
from mcp_gateway.scripts.chaos_harness.invariants import MORE_DESCRIPTORS, SETTLE_S, check, excuses, unseen

NOW_S = 1000.0


def history(*records: Record) -> History:
    found = History()
    for record in records:
        found.add(record)
    return found


def asked(call_id: int = 1, at_s: float = 10.0, *, backend: str = ALONE, argument: str = "") -> Asked:
    return Asked(call_id=call_id, client="c", backend=backend, argument=argument, at_s=at_s, deadline_s=at_s + 10)


def ended(call_id: int = 1, outcome: str = OK, at_s: float = 10.5) -> Ended:
    return Ended(call_id=call_id, outcome=outcome, at_s=at_s)


def call(outcome: str, at_s: float, *, backend: str = ALONE, call_id: int = 1) -> tuple[Asked, Ended]:
    return asked(call_id, at_s, backend=backend), ended(call_id, outcome, at_s + 0.1)


def fault(
    kind: str, target: str, began_s: float, ended_s: float, recovered_s: float | None = None, *, fault_id: int = 1
) -> list[Record]:
    found: list[Record] = [
        FaultBegan(fault_id=fault_id, fault=kind, target=target, at_s=began_s),
        FaultEnded(fault_id=fault_id, at_s=ended_s),
    ]
    return found if recovered_s is None else [*found, Recovered(fault_id=fault_id, at_s=recovered_s)]


def seen(number: int, event_id: int, at_s: float = 20.0, follower: str = "f") -> Seen:
    return Seen(follower=follower, event_id=event_id, number=number, at_s=at_s)


FOLLOWING = Following(follower="f", at_s=1.0)


def acknowledged(number: int, at_s: float = 20.0) -> Acknowledged:
    return Acknowledged(number=number, at_s=at_s)


def weight(processes: int = 5, descriptors: int = 100, memory_bytes: int = 100_000_000, files: int = 9) -> Weighed:
    return Weighed(processes=processes, memory_bytes=memory_bytes, descriptors=descriptors, files=files, at_s=NOW_S)


def stopped(took_s: float = 1.0, exit_code: int | None = 0, left_over: int = 0) -> Stopped:
    return Stopped(took_s=took_s, allowed_s=13.0, exit_code=exit_code, left_over=left_over, at_s=NOW_S)


def broken(*records: Record, is_over: bool = True) -> set[str]:
    return {each.invariant for each in check(history(*records), NOW_S, is_over=is_over)}


ONCE = "each request ends once and in time"
EVENTS = "no acknowledged event is lost doubled or reordered"
REFUSED = "nobody is refused while somebody is well"
GIVEN_BACK = "what was taken is given back"
ENDS = "it ends in time and leaves nothing"


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([], set()),
        ([asked(), ended()], set()),
        ([asked()], {ONCE}),
        ([asked(at_s=NOW_S - 1)], set()),
        ([asked(), ended(), ended()], {ONCE}),
        ([asked(), ended(outcome=LATE)], {ONCE}),
        ([asked(), ended(at_s=21)], {ONCE}),
        ([asked(), ended(outcome=f"{WRONG}: 500")], {ONCE}),
        ([Ran(argument="a", server="s", at_s=1), Ran(argument="b", server="s", at_s=2)], set()),
        ([Ran(argument="a", server="s", at_s=1), Ran(argument="a", server="t", at_s=2)], {"no unsafe call runs twice"}),
        ([asked(argument="a"), Ran(argument="a", server="s", at_s=11), ended()], set()),
        ([asked(argument="a"), ended()], {"no call is answered that never ran"}),
        ([FOLLOWING, acknowledged(1), seen(1, 7)], set()),
        ([FOLLOWING, acknowledged(1)], {EVENTS}),
        ([FOLLOWING, acknowledged(1, at_s=0.5)], set()),
        ([FOLLOWING, seen(1, 7), seen(1, 8)], {EVENTS}),
        ([FOLLOWING, seen(1, 8), seen(2, 7)], {EVENTS}),
        ([FOLLOWING, acknowledged(1), acknowledged(2), seen(2, 7), seen(1, 8)], {EVENTS}),
        ([FOLLOWING, acknowledged(2), seen(2, 7), seen(1, 8)], set()),
        ([FOLLOWING, acknowledged(1), attrs.evolve(acknowledged(2), publisher="b"), seen(2, 7), seen(1, 8)], set()),
        ([FOLLOWING, acknowledged(1), seen(1, 7), seen(1, 7, follower="g")], set()),
        ([FOLLOWING, acknowledged(1), seen(1, 7), seen(1, 8, follower="g")], {"all followers see one order"}),
        ([Missed(follower="f", first_id=3, last_id=5, at_s=20)], {EVENTS}),
        ([SessionLost(client="c", backend=ALONE, at_s=20)], {"sessions go on"}),
        ([*call("circuit_open", 10)], {REFUSED}),
        ([*call(CUT, 10)], {REFUSED}),
        ([weight(), weight()], set()),
        ([weight(), weight(processes=6)], {GIVEN_BACK}),
        ([weight(), weight(descriptors=100 + MORE_DESCRIPTORS)], set()),
        ([weight(), weight(descriptors=101 + MORE_DESCRIPTORS)], {GIVEN_BACK}),
        ([weight(), weight(memory_bytes=300_000_000)], {GIVEN_BACK}),
        ([weight(), weight(files=100)], {GIVEN_BACK}),
        ([weight(), weight(processes=60), weight()], set()),
        ([stopped()], set()),
        ([stopped(took_s=14)], {ENDS}),
        ([stopped(exit_code=1)], {ENDS}),
        ([stopped(exit_code=None)], {ENDS}),
        ([stopped(left_over=1)], {ENDS}),
    ],
)
def test_an_invariant_is_broken_by_what_it_forbids(records: list[Record], expected: set[str]) -> None:
    assert broken(*records) == expected


def test_an_event_that_may_still_be_on_its_way_is_not_lost() -> None:
    records = (FOLLOWING, acknowledged(1, at_s=NOW_S - SETTLE_S + 1))
    assert broken(*records, is_over=False) == set()
    assert broken(*records) == {EVENTS}
    still_down = fault("kill event log", "event-log", NOW_S - 1, NOW_S - 1)
    assert broken(FOLLOWING, acknowledged(1), *still_down, is_over=False) == set()


def test_recovery_is_counted_from_the_end_of_the_cause() -> None:
    allowed_s = KINDS["kill cell"].recovers_s
    assert broken(*fault("kill cell", "cell/0", 10, 30, 30 + allowed_s)) == set()
    assert broken(*fault("kill cell", "cell/0", 10, 30, 30.1 + allowed_s)) == {"all is well again in time"}
    assert broken(*fault("kill cell", "cell/0", 10, 30)) == {"all is well again in time"}


@pytest.mark.parametrize(
    ("kind", "target", "keeps_s"),
    [
        ("hang server", "alone-0", 6.0),  # its cause lasts for 4 s of it, and 2 s go by until it has been recovered from
        ("kill event log", "event-log", 6.0),
        ("slow loris", "clients", 0.0),
    ],
)
def test_the_clock_of_a_recovery_stands_still_while_another_fault_keeps_it(kind: str, target: str, keeps_s: float) -> None:
    allowed_s = KINDS["kill cell"].recovers_s
    other = fault(kind, target, 12, 16, 18, fault_id=2)
    for late_s, verdict in ((-0.1, set()), (0.1, {"all is well again in time"})):
        assert broken(*fault("kill cell", "cell/0", 10, 10, 10 + allowed_s + keeps_s + late_s), *other) == verdict


def test_a_fault_of_one_server_is_not_kept_by_one_of_another() -> None:
    late_s = KINDS["kill server"].recovers_s + 0.1
    other = fault("hang server", "alone-0", 12, 16, 18, fault_id=2)
    assert broken(*fault("kill server", "pair-0", 10, 10, 10 + late_s), *other) == {"all is well again in time"}


def test_faults_that_are_never_recovered_from_do_not_excuse_each_other() -> None:
    first, second = fault("kill cell", "cell/0", 10, 10), fault("kill server", "alone-0", 14, 16, fault_id=2)
    assert [each.at_s for each in check(history(*first, *second), NOW_S)] == [10, 14]


@pytest.mark.parametrize(
    ("kind", "target", "backend", "at_s", "is_excused"),
    [
        ("kill cell", "cell/0", DEMO, 99.0, False),
        ("kill cell", "cell/0", DEMO, 99.95, True),  # the call was under way
        ("kill cell", "cell/0", DEMO, 112 + GRACE_S - 0.1, True),
        ("kill cell", "cell/0", DEMO, 112 + GRACE_S + 0.1, False),
        ("restart cell", "cell/0", DEMO, 105.0, False),
        ("kill event log", "event-log", ALONE, 105.0, False),
        ("kill server", "alone-0", ALONE, 105.0, True),
        ("kill server", "alone-0", PAIR, 105.0, False),
        ("kill server", "pair-0", PAIR, 101.0, True),
        ("kill server", "pair-0", PAIR, 100 + LEARN_S + 0.1, False),  # the other one is well, and that is known by now
        ("kill server", "pair-0", PAIR, 111.0, True),
    ],
)
def test_a_fault_accounts_for_refusals_of_what_it_hurts_while_it_lasts(
    kind: str, target: str, backend: str, at_s: float, is_excused: bool
) -> None:
    """The fault lasts from 100 to 110 and is recovered from at 112; calls take 0.1 s."""
    records = (*fault(kind, target, 100, 110, 112), *call("circuit_open", at_s, backend=backend))
    assert (REFUSED not in broken(*records)) == is_excused


@pytest.mark.parametrize(
    ("is_bound", "outcome", "at_s", "is_excused"),
    [
        (True, CUT, 105.0, True),
        (False, CUT, 105.0, False),
        (True, "upstream_failed", 105.0, False),
        (True, CUT, 120.0, False),
    ],
)
def test_a_socket_that_ends_in_order_may_end_under_a_request_that_was_just_sent(
    is_bound: bool, outcome: str, at_s: float, is_excused: bool
) -> None:
    sent = attrs.evolve(asked(at_s=at_s), is_bound=is_bound)
    records = (*fault("restart cell", "cell/0", 100, 110, 112), sent, ended(1, outcome, at_s + 0.1))
    assert (REFUSED not in broken(*records)) == is_excused


def test_on_a_busy_machine_recovery_may_take_so_many_times_longer() -> None:
    allowed_s = KINDS["kill cell"].recovers_s
    for patience, is_broken in ((1.0, True), (3.0, False)):
        slow = History(patience)
        for record in (*fault("kill cell", "cell/0", 10, 10, 10 + 2 * allowed_s), *call("no_backend", 10 + 2 * allowed_s + 3)):
            slow.add(record)
        assert bool(check(slow, NOW_S)) == is_broken


def test_a_scenario_may_promise_another_time_to_recover() -> None:
    for took_s, is_broken in ((1.0, False), (1.1, True)):
        promised = History(2.0, {"kill cell": 0.5})
        for record in fault("kill cell", "cell/0", 10, 10, 10 + took_s):
            promised.add(record)
        assert bool(check(promised, NOW_S)) == is_broken


def test_a_tree_that_never_comes_back_excuses_nobody_for_ever() -> None:
    records = (*fault("kill cell", "cell/0", 100, 100), *call("no_backend", 900))
    assert REFUSED in broken(*records)


def test_a_fault_that_goes_on_excuses_until_now() -> None:
    began = FaultBegan(fault_id=1, fault="hang server", target="alone-0", at_s=NOW_S - 3)
    assert broken(began, *call("upstream_timeout", NOW_S - 1), is_over=False) == set()


faults = st.builds(
    lambda kind, at_s, lasts_s: fault(
        kind.name, kind.targets[0].replace("*", "0"), at_s, at_s + lasts_s, at_s + lasts_s + kind.recovers_s / 2
    ),
    st.sampled_from(FAULTS),
    st.floats(0, 500),
    st.floats(0, 60),
)


@given(faults)
def test_excuses_begin_with_their_fault_and_end_in_bounds(records: list[Record]) -> None:
    began, gone = records[0], records[1]
    assert isinstance(began, FaultBegan)
    for excuse in excuses(history(*records), NOW_S):
        assert excuse.backend in BACKENDS
        assert began.at_s <= excuse.from_s <= excuse.to_s
        most_s = max(gone.at_s + KINDS[began.fault].recovers_s + GRACE_S, began.at_s + LEARN_S)
        assert excuse.to_s <= most_s


@given(st.lists(st.integers(1, 50), unique=True), st.data())
def test_what_is_unseen_is_what_was_acknowledged_and_not_seen(numbers: list[int], data: st.DataObject) -> None:
    read = data.draw(st.sets(st.sampled_from(numbers))) if numbers else set()
    records: list[Record] = [FOLLOWING, *(acknowledged(each) for each in numbers)]
    records += [seen(number, place + 1) for place, number in enumerate(sorted(read))]
    missing = [number for number in numbers if number not in read]
    assert dict(unseen(history(*records), NOW_S)) == ({"f": missing} if missing else {})
