"""Tests of how long something that failed is left alone."""

import hypothesis.strategies as st
from hypothesis import given

from mcp_gateway.transports.upstream.pipes.backoff import Backoff


def test_the_first_failure_is_repaired_at_once_and_each_further_one_doubles_the_wait_up_to_a_bound() -> None:
    backoff = Backoff(first_s=0.25, longest_s=30.0)
    assert backoff.delay_s(0.0) == 0.0
    delays = []
    for _ in range(12):
        backoff.failed(100.0)
        delays.append(backoff.delay_s(100.0))
    assert delays == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    assert backoff.delay_s(129.0) == 1.0
    assert backoff.delay_s(131.0) == 0.0


def test_a_success_forgets_all_failures() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.failed(0.0)
    backoff.succeeded()
    assert (backoff.delay_s(0.0), backoff.failure_count) == (0.0, 0)
    backoff.failed(0.0)
    assert backoff.delay_s(0.0) == 0.0


@given(st.lists(st.floats(0, 1e6), max_size=200))
def test_the_wait_is_never_longer_than_the_bound(failures_s: list[float]) -> None:
    backoff = Backoff(longest_s=30.0)
    for now_s in sorted(failures_s):
        backoff.failed(now_s)
        assert 0.0 <= backoff.delay_s(now_s) <= 30.0 + 1e-9  # what is left of a deadline carries the rounding of the clock


def test_what_has_failed_together_is_not_tried_again_together() -> None:
    waits = []
    for chance in (0.0, 0.5, 1.0):
        backoff = Backoff(first_s=10.0, longest_s=75.0, chance=lambda: chance)  # noqa: B023
        for _ in range(9):
            backoff.failed(0.0)
        waits.append(backoff.delay_s(0.0))
    assert waits == [75.0, 67.5, 60.0]


def test_of_failures_in_a_row_each_doubling_is_worth_telling() -> None:
    backoff, told = Backoff(), []
    for count in range(1, 1_000):
        backoff.failed(0.0)
        if backoff.is_worth_telling:
            told.append(count)
    assert told == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
