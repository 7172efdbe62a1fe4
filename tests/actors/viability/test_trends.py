"""Trends: what is usual, how far from it, and when a line meets its limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.viability.trends import Baseline, Trend


def test_the_usual_is_known_from_the_first_value_and_follows_slowly() -> None:
    baseline = Baseline(memory_s=300.0)
    assert baseline.drift(5.0) == 1.0
    baseline.learn(0.1, 0.0)
    assert baseline.drift(0.4) == pytest.approx(4.0)
    for second in range(1, 100):
        baseline.learn(0.1, float(second))
    for second in range(100, 110):
        baseline.learn(1.0, float(second))
    assert baseline.value == pytest.approx(0.13, abs=0.02)
    for second in range(110, 2000):
        baseline.learn(1.0, float(second))
    assert baseline.value == pytest.approx(1.0, abs=0.01)


@given(values=st.lists(st.floats(0.001, 100.0), min_size=1, max_size=100))
def test_the_usual_lies_between_the_least_and_the_most_that_was_seen(values: list[float]) -> None:
    baseline = Baseline()
    for second, value in enumerate(values):
        baseline.learn(value, float(second))
    assert baseline.value is not None
    assert min(values) - 1e-6 <= baseline.value <= max(values) + 1e-6


@pytest.mark.parametrize(
    ("values", "limit_in_s"),
    [
        ([0.5] * 20, None),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], None),
        ([0.1 * step for step in range(6)], 5.0),
        ([0.001 * step for step in range(6)], None),  # beyond the horizon
        ([0.2, 0.4], None),  # too few
        ([0.9, 0.9, 0.9, 0.9, 1.0], 0.0),
    ],
)
def test_a_forecast_follows_the_line_to_the_limit(values: list[float], limit_in_s: float | None) -> None:
    trend = Trend()
    for second, value in enumerate(values):
        trend.add(value, float(second))
    found = trend.forecast(1.0).limit_in_s
    assert found == (None if limit_in_s is None else pytest.approx(limit_in_s))


def test_values_of_one_moment_have_no_slope() -> None:
    trend = Trend()
    for value in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        trend.add(value, 7.0)
    assert trend.forecast(1.0).slope_per_s == 0.0
