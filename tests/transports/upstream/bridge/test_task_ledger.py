"""How many tasks a cell keeps: at each limit, and past it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.bridge.task_ledger import TaskLedger, TaskLimits

LIMITS = TaskLimits(in_all=5, per_client=2, per_backend=3, result_bytes=10)


@pytest.mark.parametrize(
    ("kept", "task", "problem"),
    [
        ([("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")], ("c", "x"), ""),
        ([("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"), ("c", "x")], ("c", "y"), "5 tasks are kept"),
        ([("a", "x"), ("a", "y")], ("a", "z"), "2 tasks of this client"),
        ([("a", "x"), ("b", "x"), ("c", "x")], ("d", "x"), "3 tasks of backend 'x'"),
    ],
)
def test_each_limit_admits_as_many_as_it_says_and_no_more(
    kept: list[tuple[str, str]], task: tuple[str, str], problem: str
) -> None:
    ledger = TaskLedger(LIMITS)
    for number, (client, backend) in enumerate(kept):
        assert ledger.open(str(number), client, backend) == ""
    refused = ledger.open("new", *task)
    assert refused.startswith(problem)
    assert bool(refused) == bool(problem)


def test_the_oldest_results_leave_for_new_ones_and_one_that_is_too_large_leaves_at_once() -> None:
    ledger = TaskLedger(LIMITS)
    for name in ("1", "2", "3"):
        ledger.open(name, name, "x")
    assert ledger.running_count == 3
    assert ledger.finish("2", 6) == []
    assert ledger.running_count == 2
    assert ledger.finish("2", 6) == [], "it is over once"
    assert ledger.finish("1", 6) == ["2"]
    ledger.forget("2")
    assert ledger.finish("3", 11) == ["1", "3"]
    assert ledger.finish("nobody's", 11) == []


@given(st.lists(st.tuples(st.sampled_from("ofd"), st.integers(0, 9), st.sampled_from("abc"), st.integers(0, 12))))
def test_the_counts_are_those_of_the_tasks_that_are_kept(steps: list[tuple[str, int, str, int]]) -> None:
    ledger = TaskLedger(LIMITS)
    kept: set[str] = set()
    for step, number, client, size in steps:
        name = str(number)
        if step == "o" and name not in kept:
            kept |= {name} if not ledger.open(name, client, "xy"[size % 2]) else set()
        elif step == "f":
            for leaving in ledger.finish(name, size):
                ledger.forget(leaving)
                kept.discard(leaving)
        else:
            ledger.forget(name)
            kept.discard(name)
        ledger.assert_consistent()
        assert len(ledger) == len(kept)
