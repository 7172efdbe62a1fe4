"""Slow start: the share of keys grows from a tenth to all, and no key goes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.routing.slow_start import takes

KEYS = [f"user-{number}" for number in range(2_000)]


@pytest.mark.parametrize(
    ("elapsed_s", "share"), [(-1.0, 0.1), (0.0, 0.1), (2.0, 0.1), (5.0, 0.25), (10.0, 0.5), (19.0, 0.95), (20.0, 1.0)]
)
def test_the_share_of_its_keys_grows_with_the_time(elapsed_s: float, share: float) -> None:
    taken = sum(takes(key, 100.0, 20.0, 100.0 + elapsed_s) for key in KEYS)
    assert taken / len(KEYS) == pytest.approx(share, abs=0.03)


@given(st.text(max_size=30), st.floats(0.0, 30.0), st.floats(0.0, 30.0))
def test_a_key_that_was_taken_stays(key: str, one_s: float, other_s: float) -> None:
    earlier_s, later_s = sorted((one_s, other_s))
    if takes(key, 0.0, 20.0, earlier_s):
        assert takes(key, 0.0, 20.0, later_s)
