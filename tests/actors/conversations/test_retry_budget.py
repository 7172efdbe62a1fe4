"""The retry budget: a reserve, a rate, a share of what is answered, and never more than all of them together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.conversations.retry_budget import RESERVE_S, RETRIES_PER_S, RetryBudget

RESERVE = int(RETRIES_PER_S * RESERVE_S)


def taken(budget: RetryBudget, now_s: float) -> int:
    """How many retries there are now, when all of them are made."""
    count = 0
    while budget.take(now_s):
        count += 1
    return count


def test_the_reserve_is_there_at_once_and_no_more() -> None:
    budget = RetryBudget(0.2, 50.0)
    assert (taken(budget, 50.0), taken(budget, 50.0)) == (RESERVE, 0)


def test_time_fills_it_at_its_rate_and_up_to_the_reserve() -> None:
    budget = RetryBudget(0.2, 0.0)
    taken(budget, 0.0)
    assert taken(budget, 0.5) == 5
    assert taken(budget, 1_000.0) == RESERVE


def test_answers_fill_it_by_their_share() -> None:
    budget = RetryBudget(0.25, 0.0)
    taken(budget, 0.0)
    for _ in range(40):
        budget.note_answer()
    assert taken(budget, 0.0) == 10


def test_a_share_of_nothing_allows_no_retry_at_all() -> None:
    budget = RetryBudget(0.0, 0.0)
    budget.note_answer()
    assert taken(budget, 1_000.0) == 0


@given(st.floats(0.01, 1.0), st.lists(st.sampled_from(["answer", "take", 0.01, 0.3, 5.0]), max_size=300))
def test_retries_are_bounded_by_reserve_rate_and_share(share: float, steps: list[object]) -> None:
    budget, now_s, answers, retries = RetryBudget(share, 0.0), 0.0, 0, 0
    for step in steps:
        if step == "answer":
            budget.note_answer()
            answers += 1
        elif step == "take":
            retries += budget.take(now_s)
        else:
            now_s += float(step)  # type: ignore[arg-type]
        assert retries <= RESERVE + RETRIES_PER_S * now_s + share * answers + 1e-6
