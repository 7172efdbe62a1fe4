"""How the time of a drain is shared between requests and servers; drains of whole cells are in test_cell.py."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.cell.cell_drain import requests_s, wires_s


@pytest.mark.parametrize("drain_s", [0.0, 0.1, 1.0, 5.0, 10.0, 600.0])
def test_requests_that_fill_the_time_of_a_drain_leave_servers_some_of_it(drain_s: float) -> None:
    assert 0.95 * drain_s <= requests_s(drain_s) <= drain_s
    assert requests_s(drain_s) + wires_s(drain_s - requests_s(drain_s)) <= drain_s + 0.4


@pytest.mark.parametrize(
    ("left_s", "expected_s"), [(-1.0, 0.4), (0.4, 0.4), (1.0, 1.0), (2.2, 2.2), (9.0, 2.2), (float("inf"), 2.2)]
)
def test_servers_have_what_is_left_of_a_drain_within_bounds(left_s: float, expected_s: float) -> None:
    assert wires_s(left_s) == expected_s
