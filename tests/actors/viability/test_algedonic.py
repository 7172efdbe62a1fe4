"""The algedonic channel: onset, worse, relief, emergency, and getting used to what does not change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.actors.viability.algedonic import (
    FELT_FLOOR,
    ONSET,
    RELIEF,
    RELIEF_HOLD_S,
    AlgedonicSense,
    Feeling,
    Signal,
    SignalKind,
)


def felt_over_time(levels: list[float], *, step_s: float = 1.0) -> list[str]:
    """One letter for each level: what was told of a single source. P pain, L pleasure, "." nothing."""
    sense, letters = AlgedonicSense(), []
    for number, level in enumerate(levels):
        told = sense.feel({"x": Feeling(level=level, text="it hurts")}, number * step_s)
        assert len(told) <= 1
        letters.append({SignalKind.PAIN: "P", SignalKind.PLEASURE: "L"}[told[0].kind] if told else ".")
    return letters


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.0, 0.2, 0.24], "..."),
        ([0.3, 0.3, 0.3], "P.."),
        ([0.3, 0.2, 0.3, 0.2, 0.3], "P...."),  # between relief and onset nothing changes
        ([0.3, 0.4, 0.49, 0.5, 0.6, 0.9], "P..P.P"),
        ([0.9, 0.3, 0.9], "P.."),
        ([0.3, 0.0, 0.0, 0.0, 0.0], "P..L."),
        ([0.3, 0.0, 0.3, 0.0, 0.0, 0.0], "P....L"),  # a short calm is no relief
        ([0.3, 0.0, 0.0, 0.0, 0.3], "P..LP"),
    ],
)
def test_a_source_is_told_of_when_it_begins_gets_worse_and_ends(levels: list[float], expected: str) -> None:
    assert "".join(felt_over_time(levels)) == expected


def test_relief_is_as_strong_as_the_pain_was_and_says_since_when_it_hurt() -> None:
    sense = AlgedonicSense()
    sense.feel({"x": Feeling(level=0.4, text="slow")}, 10.0)
    sense.feel({"x": Feeling(level=0.7, text="slower")}, 11.0)
    sense.feel({}, 12.0)
    (relief,) = sense.feel({}, 12.0 + RELIEF_HOLD_S)
    assert relief == Signal(kind=SignalKind.PLEASURE, source="x", intensity=0.7, text="slower", since_s=10.0)
    assert sense.aches == ()
    assert sense.pain == 0.0


def test_a_constant_ache_does_not_drown_a_new_one() -> None:
    sense = AlgedonicSense()
    old = {"old": Feeling(level=0.9, text="old ache")}
    for second in range(300):
        sense.feel(old, float(second))
    assert sense.aches[0].felt == pytest.approx(0.9 * FELT_FLOOR, abs=0.01)
    (told,) = sense.feel({**old, "new": Feeling(level=0.4, text="new ache")}, 300.0)
    assert (told.kind, told.source) == (SignalKind.PAIN, "new")
    assert [ache.source for ache in sense.aches] == ["new", "old"]
    assert sense.pain == pytest.approx(0.4)


def test_an_emergency_waits_for_no_threshold_and_is_told_once() -> None:
    sense = AlgedonicSense()
    gone = {"all": Feeling(level=0.0, text="nothing serves", is_emergency=True)}
    (told,) = sense.feel(gone, 0.0)
    assert told == Signal(kind=SignalKind.EMERGENCY, source="all", intensity=1.0, text="nothing serves", since_s=0.0)
    for second in range(1, 200):
        assert sense.feel(gone, float(second)) == ()
        assert sense.aches[0].source == "all"
    sense.feel({}, 200.0)
    assert [signal.kind for signal in sense.feel({}, 200.0 + RELIEF_HOLD_S)] == [SignalKind.PLEASURE]


def test_an_emergency_comes_before_pain_and_pain_before_pleasure() -> None:
    sense = AlgedonicSense()
    sense.feel({"ends": Feeling(level=0.5)}, 0.0)
    sense.feel({}, 1.0)
    told = sense.feel(
        {"small": Feeling(level=0.3), "big": Feeling(level=0.8), "gone": Feeling(level=1.0, is_emergency=True)},
        1.0 + RELIEF_HOLD_S,
    )
    assert [signal.source for signal in told] == ["gone", "big", "small", "ends"]


def test_what_is_over_for_long_is_forgotten() -> None:
    sense = AlgedonicSense()
    for number in range(1_000):
        sense.feel({f"source-{number}": Feeling(level=0.5)}, number * 10.0)
    sense.feel({}, 20_000.0)
    sense.feel({}, 30_000.0)
    assert len(sense._nerves) < 5


@settings(max_examples=200, deadline=None)
@given(levels=st.lists(st.floats(0.0, 1.0), max_size=60), step_s=st.floats(0.1, 30.0))
def test_pain_and_pleasure_alternate_and_stay_within_bounds(levels: list[float], step_s: float) -> None:
    sense, is_hurting = AlgedonicSense(), False
    for number, level in enumerate(levels):
        for signal in sense.feel({"x": Feeling(level=level)}, number * step_s):
            assert 0.0 <= signal.intensity <= 1.0
            if signal.kind is SignalKind.PLEASURE:
                assert is_hurting
                assert level <= RELIEF
                is_hurting = False
            else:
                assert level >= ONSET
                is_hurting = True
        assert bool(sense.aches) is is_hurting
        assert 0.0 <= sense.pain <= 1.0
