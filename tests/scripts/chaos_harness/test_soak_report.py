"""What a soak promises is judged by its samples alone."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.chaos_harness.soak_report import (
    MORE_FILES,
    MORE_MB,
    MORE_SERIES,
    Sample,
    Soak,
    as_json,
    as_markdown,
    broken_promises,
    slope,
)


def sample(at_s: float = 0.0, memory_mb: float = 50.0, files: int = 5, series: int = 100, sessions: int = 0) -> Sample:
    return Sample(at_s=at_s, memory_mb=memory_mb, files=files, series=series, sessions=sessions)


def soak(after: Sample | None = None, *, seconds: float = 600.0, grows_mb: float = 0.0, refused: int = 0, cells: int = 1) -> Soak:
    """grows_mb: a minute."""
    churned = tuple(sample(at_s=second, memory_mb=50 + grows_mb * second / 60) for second in (0.0, seconds / 2, seconds))
    return Soak(
        title="A soak",
        cells=cells,
        churned=churned,
        rested=(sample(), sample(memory_mb=54, sessions=1000), after or sample()),
        idle_count=1000,
        abandoned={"WebSocket": 3},
        refused=refused,
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (soak(), ""),
        (soak(grows_mb=0.19), ""),
        (soak(grows_mb=0.21), "memory grows by 0.21 MB a minute, not 0.2"),
        (soak(grows_mb=0.21, cells=2), ""),
        (soak(grows_mb=30, seconds=20), ""),  # too short to tell
        (soak(sample(memory_mb=50 + MORE_MB)), ""),
        (soak(sample(memory_mb=50.1 + MORE_MB)), "memory: 50.0 MB before, 62.1 MB when"),
        (soak(sample(sessions=1)), "sessions: 1 are known"),
        (soak(sample(series=100 + MORE_SERIES)), ""),
        (soak(sample(series=101 + MORE_SERIES)), "series: 100 before, 161"),
        (soak(sample(files=5 + MORE_FILES)), ""),
        (soak(sample(files=6 + MORE_FILES)), "files: 5 before"),
        (soak(refused=2), "2 clients were refused"),
    ],
)
def test_a_promise_is_broken_by_what_it_forbids(found: Soak, says: str) -> None:
    broken = broken_promises(found)
    assert len(broken) == bool(says)
    assert says in "".join(broken)


def test_the_report_tells_what_a_session_costs_and_what_was_left_behind() -> None:
    found = soak(sample(sessions=2))
    assert found.bytes_per_session == pytest.approx(4000)
    text = as_markdown(found)
    assert "4000 bytes an idle session" in text
    assert "| WebSocket | 3 |" in text
    assert "* sessions: 2 are known after two idle timeouts" in text
    assert json.loads(json.dumps(as_json(found)))["broken"] == broken_promises(found)
    assert "Broken promises: 0" in as_markdown(attrs.evolve(soak(), churned=()))


def test_what_a_session_costs_is_shared_by_the_idle_sessions_alone() -> None:
    """Sessions of clients that came and went may still be known before, and no more when the idle ones are there."""
    before, full, after = soak().rested
    busy = attrs.evolve(soak(), rested=(attrs.evolve(before, sessions=999), full, after))
    assert busy.bytes_per_session == pytest.approx(4000)
    assert attrs.evolve(busy, idle_count=0).bytes_per_session == 0.0


@given(st.lists(st.integers(-1000, 1000), min_size=2, unique=True), st.integers(-50, 50), st.integers(-50, 50))
def test_a_straight_line_has_its_own_slope(places: list[int], rise: int, start: int) -> None:
    assert slope([(x, start + rise * x) for x in places]) == pytest.approx(rise, abs=1e-6)


def test_no_line_goes_through_one_point() -> None:
    assert slope([]) == slope([(1, 5)]) == slope([(1, 5), (1, 7)]) == 0.0
