"""Shares of calls that went wrong in a window that slides: a table, what two clients must have seen, and a count by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.routing.outlier_window import OutlierRules, OutlierWindow

ADA, BOB = "192.0.2.1", "192.0.2.2"
RULES = OutlierRules(window_s=10.0, minimum_calls=10, failure_rate_threshold=0.5, slow_call_rate_threshold=0.8)


def window_after(*notes: tuple[str, str, int], rules: OutlierRules = RULES, at_s: float = 100.0) -> OutlierWindow:
    window = OutlierWindow(rules)
    for what, client, success_count in notes:
        note = window.note_failure if what == "failure" else window.note_slow_call
        note(at_s, client, success_count)
    return window


@pytest.mark.parametrize(
    ("notes", "is_exceeded"),
    [
        ([], False),
        ([("failure", ADA, 0), ("failure", BOB, 0)] * 4, False),  # 8 calls say nothing
        ([("failure", ADA, 0), ("failure", BOB, 0)] * 5, True),
        ([("failure", ADA, 0)] * 50, False),  # one client alone
        ([("failure", ADA, 1), ("failure", BOB, 1)] * 5, True),  # half of them
        ([("failure", ADA, 1), ("failure", BOB, 1)] * 5 + [("failure", ADA, 2)], False),
        ([("failure", ADA, 100)] + [("failure", BOB, 0)] * 9, False),
        ([("slow", ADA, 0), ("slow", BOB, 0)] * 5, True),
        ([("slow", ADA, 0), ("slow", BOB, 0)] * 5 + [("slow", ADA, 2)], True),
        ([("slow", ADA, 1), ("slow", BOB, 0)] * 5, False),
        ([("slow", ADA, 0), ("failure", BOB, 0)] * 5, True),
    ],
)
def test_a_window_is_exceeded(notes: list[tuple[str, str, int]], is_exceeded: bool) -> None:
    assert window_after(*notes).is_exceeded(100.0) is is_exceeded


def test_a_threshold_of_zero_asks_for_nothing() -> None:
    notes = [("failure", ADA, 0), ("slow", BOB, 0)] * 50
    assert not window_after(*notes, rules=OutlierRules(minimum_calls=1)).is_exceeded(100.0)


def test_what_is_older_than_the_window_counts_no_more() -> None:
    window = window_after(*[("failure", ADA, 0), ("failure", BOB, 0)] * 5)
    assert window.is_exceeded(108.9)
    assert not window.is_exceeded(111.1)


def test_the_second_witness_must_have_seen_it_within_the_window() -> None:
    window = window_after(("failure", BOB, 0))
    for second in range(20):
        window.note_failure(101.0 + second, ADA, 0)
    assert not window.is_exceeded(120.0)
    window.note_failure(120.0, BOB, 0)
    assert window.is_exceeded(120.0)


def test_successes_of_a_long_silence_are_taken_as_spread_evenly() -> None:
    """A thousand calls in 100 s are a hundred in the window: 100 failures at once are half of them."""
    window = window_after(("failure", ADA, 0))
    window.note_failure(200.0, BOB, 1_000)
    for _ in range(98):
        window.note_failure(200.0, ADA, 0)
    assert not window.is_exceeded(200.0)
    window.note_failure(200.0, ADA, 0)
    assert window.is_exceeded(200.0)


def test_what_is_judged_is_forgotten() -> None:
    window = window_after(*[("failure", ADA, 0), ("failure", BOB, 0)] * 5)
    window.forget(100.0)
    assert not window.is_exceeded(100.0)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.5, 3.0]), st.booleans(), st.sampled_from([ADA, BOB]), st.integers(0, 5)),
        min_size=1,
        max_size=80,
    )
)
def test_it_agrees_with_a_count_by_hand_within_a_tenth_of_the_window(steps: list[tuple[float, bool, str, int]]) -> None:
    """Reports at most 3 s apart, so that successes are not spread; edges of the tenths are left out."""
    window, now_s, notes = OutlierWindow(RULES), 50.0, []
    for passed_s, is_failure, client, successes in steps:
        now_s += passed_s
        (window.note_failure if is_failure else window.note_slow_call)(now_s, client, successes)
        notes.append((now_s, is_failure, client, successes))

    def verdict(since_s: float) -> bool:
        seen = [note for note in notes if note[0] > since_s]
        calls = sum(1 + note[3] for note in seen)
        failures = sum(note[1] for note in seen)
        slow = len(seen) - failures
        clients = {note[2] for note in notes if note[0] > now_s - 10.0}
        return calls >= 10 and len(clients) == 2 and (failures >= 0.5 * calls or slow >= 0.8 * calls)

    shortest, longest = verdict(now_s - 9.0), verdict(now_s - 10.0)
    if shortest == longest:
        assert window.is_exceeded(now_s) in (shortest, *(verdict(now_s - tenth / 10) for tenth in range(90, 101)))
