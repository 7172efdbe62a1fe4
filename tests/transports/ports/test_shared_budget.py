"""Nobody has more than a share, nothing is held beyond the limit, and what is given back is there again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.ports.shared_budget import SharedBudget


def test_one_holder_gets_its_share_and_leaves_the_rest_to_others() -> None:
    budget = SharedBudget(100, 0.25)
    assert [budget.take("a") for _ in range(26)] == [True] * 25 + [False]
    assert budget.take("b")
    assert (budget.held, budget.held_by("a"), budget.held_by("b"), budget.held_by("c")) == (26, 25, 1, 0)


def test_at_the_limit_nobody_gets_more() -> None:
    budget = SharedBudget(8, 0.5)
    assert [budget.take(holder, 4) for holder in "abc"] == [True, True, False]
    budget.give_back("a", 1)
    assert [budget.take("c", 2), budget.take("c", 1)] == [False, True]


@pytest.mark.parametrize(
    ("limit", "share", "largest"), [(1, 0.25, 1), (3, 0.25, 3), (8, 0.25, 4), (1000, 0.25, 250), (10, 1.0, 10)]
)
def test_small_limits_mean_what_they_say(limit: int, share: float, largest: int) -> None:
    assert SharedBudget(limit, share).largest_share == largest


def test_more_than_one_has_cannot_be_given_back() -> None:
    budget = SharedBudget(8, 1.0)
    budget.take("a", 2)
    with pytest.raises(ValueError, match="3 given back of 2"):
        budget.give_back("a", 3)
    assert budget.held == 2


@given(st.data())
def test_the_sum_is_always_what_the_holders_have(data: Any) -> None:
    budget = SharedBudget(data.draw(st.integers(1, 60)), data.draw(st.floats(0.01, 1.0)))
    holders = {"a": 0, "b": 0, "c": 0}
    for _ in range(data.draw(st.integers(0, 40))):
        holder = data.draw(st.sampled_from(sorted(holders)))
        amount = data.draw(st.integers(0, 20))
        if data.draw(st.booleans()):
            holders[holder] += amount if budget.take(holder, amount) else 0
        elif amount <= holders[holder]:
            budget.give_back(holder, amount)
            holders[holder] -= amount
    assert {holder: budget.held_by(holder) for holder in holders} == holders
    assert budget.held == sum(holders.values()) <= budget.limit
    assert max(holders.values()) <= budget.largest_share
