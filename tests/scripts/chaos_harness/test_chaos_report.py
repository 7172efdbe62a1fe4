"""What the report says follows from the history alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.chaos_harness.chaos_report import as_json, as_markdown, fault_rows, quantile, summary
from mcp_gateway.scripts.chaos_harness.history import (
    Asked,
    Ended,
    FaultBegan,
    FaultEnded,
    History,
    Recovered,
    Weighed,
)
from mcp_gateway.scripts.chaos_harness.history import as_json as record_as_json
from mcp_gateway.scripts.chaos_harness.invariants import Broken, excuses
from mcp_gateway.scripts.chaos_harness.timeline import draw


def a_run() -> History:
    """Ten calls that read, of which two fail, one of them because of the fault of the server that it calls."""
    history = History()
    for number in range(10):
        at_s = 100.0 + number
        history.add(Asked(call_id=number, client="c", backend="alone", argument="", at_s=at_s, deadline_s=at_s + 10))
        outcome = {5: "circuit_open", 9: "no_backend"}.get(number, "ok")
        history.add(Ended(call_id=number, outcome=outcome, at_s=at_s + 0.1))
    history.add(FaultBegan(fault_id=1, fault="kill server", target="alone-0", at_s=104.5))
    history.add(FaultEnded(fault_id=1, at_s=105.5))
    history.add(Recovered(fault_id=1, at_s=105.75))
    history.add(FaultBegan(fault_id=2, fault="kill server", target="pair-0", at_s=109.5))
    for memory_bytes in (100_000_000, 120_000_000):
        history.add(Weighed(processes=5, memory_bytes=memory_bytes, descriptors=9, files=3, at_s=110.0))
    return history


def test_faults_are_counted_by_kind_with_the_time_from_the_end_of_their_cause() -> None:
    (row,) = fault_rows(a_run())
    assert (row.fault, row.count, row.recovered, row.p50_s, row.max_s) == ("kill server", 2, 1, 0.25, 0.25)


def test_the_share_of_first_tries_is_told_with_and_without_what_faults_account_for() -> None:
    history = a_run()
    found = summary("A run", history, 10, excuses(history, 111.0), [Broken(invariant="sessions go on", text="no", at_s=1)])
    assert (found.calls, found.first_try) == (10, 0.8)
    assert found.first_try_where_well == pytest.approx(6 / 7)  # of the calls of 104 to 108 nobody knows
    assert found.refusals == {"circuit_open": 1, "no_backend": 1}
    text = as_markdown(found)
    assert "# A run" in text
    assert "| kill server | 2 | 0.25 s | 0.25 s | 0.25 s |" in text
    assert "* sessions go on: no" in text
    assert json.loads(json.dumps(as_json(found)))["memory_mb"] == [100.0, 120.0]


def test_a_run_without_anything_has_a_report() -> None:
    assert "Broken invariants: 0" in as_markdown(summary("Nothing", History(), 1, [], []))
    assert draw(History(), 0, 1).startswith("<svg")


def test_many_broken_invariants_are_counted_after_the_first() -> None:
    many = [Broken(invariant="i", text=str(number), at_s=1) for number in range(30)]
    assert "* and 10 more, in report.json" in as_markdown(summary("Bad", History(), 1, [], many))


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_values_and_that_share_is_not_above_it(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert quantile([], share) is None


def test_the_timeline_shows_refusals_and_faults() -> None:
    drawn = draw(a_run(), 100.0, 112.0)
    assert drawn.count("<title>") == 2
    assert "alone-0 at 4.5 s" in drawn
    assert drawn.rstrip().endswith("</svg>")


def test_a_record_is_one_line_of_json() -> None:
    lines = [json.dumps(record_as_json(record)) for record in a_run()]
    assert json.loads(lines[0])["record"] == "Asked"
    assert all("\n" not in line for line in lines)
