"""The concurrency limit: what moves it, its bounds, and a simulated server that gets slower the more it is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.pool.concurrency_limit import LEAST, ConcurrencyLimit


def settled(capacity: int, demand: int, rounds: int = 400, limit: ConcurrencyLimit | None = None) -> ConcurrencyLimit:
    """After so many rounds of calls of a server that runs `capacity` at once in 10 ms and lets the others wait."""
    limit = limit or ConcurrencyLimit(60)
    for _ in range(rounds):
        in_flight = min(demand, limit.limit)
        limit.note(0.010 * max(1.0, in_flight / capacity), in_flight)
    return limit


def test_it_begins_at_its_ceiling_and_an_idle_server_never_lowers_it() -> None:
    limit = ConcurrencyLimit(60)
    assert limit.limit == 60
    for served_s in (0.001, 30.0, 0.001, 30.0):
        assert limit.note(served_s, 29) == 60


def test_a_server_that_becomes_slower_under_load_gets_less_of_it_and_all_when_it_is_quick_again() -> None:
    limit = settled(capacity=1_000, demand=60)
    assert limit.limit == 60
    settled(capacity=6, demand=60, rounds=60, limit=limit)
    assert LEAST <= limit.limit < 40
    settled(capacity=1_000, demand=60, rounds=400, limit=limit)
    assert limit.limit == 60


def test_calls_that_always_take_long_are_no_overload() -> None:
    limit = ConcurrencyLimit(60)
    for _ in range(1_000):
        limit.note(30.0, 60)
    assert limit.limit == 60


def test_the_wait_is_expected_from_what_calls_took_lately() -> None:
    limit = ConcurrencyLimit(10)
    assert limit.expected_wait_s(100) == 0.0
    for _ in range(50):
        limit.note(2.0, 1)
    assert limit.expected_wait_s(4) == pytest.approx(1.0)


@pytest.mark.parametrize(("ceiling", "after"), [(20, 20), (100, 100), (2, 2)])
def test_a_ceiling_that_moves_takes_a_limit_with_it_that_was_there(ceiling: int, after: int) -> None:
    limit = ConcurrencyLimit(60)
    limit.change_ceiling(ceiling)
    assert limit.limit == after


def test_a_limit_below_its_ceiling_stays_where_it_is() -> None:
    limit = settled(capacity=1_000, demand=60)
    settled(capacity=6, demand=60, rounds=60, limit=limit)
    before = limit.limit
    limit.change_ceiling(100)
    assert limit.limit == before
    limit.change_ceiling(before - 1)
    assert limit.limit == before - 1


@given(
    st.integers(1, 200),
    st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(0, 300), st.integers(0, 200)), max_size=200),
)
def test_it_stays_within_its_bounds(ceiling: int, steps: list[tuple[float, int, int]]) -> None:
    limit = ConcurrencyLimit(ceiling)
    for served_s, in_flight, new_ceiling in steps:
        if new_ceiling % 17 == 0:
            ceiling = max(1, new_ceiling)
            limit.change_ceiling(new_ceiling)
        assert limit.note(served_s, in_flight) == limit.limit
        assert min(LEAST, ceiling) <= limit.limit <= ceiling
        assert limit.expected_wait_s(in_flight) >= 0.0
