"""Tests of how much of a server's talk is logged."""

from mcp_gateway.transports.telemetry.log_budget import LogBudget


def test_beyond_the_budget_nothing_is_said_until_the_next_period_which_tells_how_much_was_left_out() -> None:
    budget = LogBudget(lines=2, period_s=10.0)
    assert [budget.take(now_s) for now_s in (0.0, 1.0, 2.0, 3.0, 9.9)] == [0, 0, None, None, None]
    assert [budget.take(now_s) for now_s in (10.0, 10.0, 10.0, 20.0)] == [3, 0, None, 1]
