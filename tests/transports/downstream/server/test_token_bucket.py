"""Token buckets: never more than the burst at once, never more than the rate in the long run, never more keys than kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.token_bucket import TokenBuckets


def test_a_burst_passes_and_the_next_request_is_told_how_long_to_wait() -> None:
    buckets = TokenBuckets(rate=2.0, burst=3)
    assert [buckets.take("a", 10.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert buckets.take("a", 10.0) == pytest.approx(0.5)
    # A refused request takes nothing: whoever waits as long as told is served.
    assert buckets.take("a", 10.5) == 0.0
    assert buckets.take("a", 10.5) == pytest.approx(0.5)


def test_a_bucket_fills_to_its_burst_and_no_further() -> None:
    buckets = TokenBuckets(rate=1.0, burst=2)
    buckets.take("a", 0.0)
    assert [buckets.take("a", 1_000.0) > 0 for _ in range(3)] == [False, False, True]


def test_one_client_does_not_use_up_what_another_may_ask() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1)
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0.0


def test_a_clock_that_goes_back_gives_no_tokens() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1)
    buckets.take("a", 10.0)
    assert buckets.take("a", 5.0) == pytest.approx(1.0)


def test_the_number_of_keys_is_bounded_and_the_longest_unused_goes_first() -> None:
    buckets = TokenBuckets(rate=0.001, burst=1, most_keys=3)
    for key in ("a", "b", "c"):
        buckets.take(key, 0.0)
    buckets.take("a", 1.0)  # used again, though refused
    assert len(buckets) == 3
    buckets.take("d", 2.0)
    assert len(buckets) == 3
    assert buckets.take("a", 3.0) > 0  # still known
    assert buckets.take("b", 3.0) == 0.0  # forgotten: full again


@pytest.mark.parametrize(("rate", "burst", "most_keys"), [(0.0, 1, 1), (-1.0, 1, 1), (1.0, 0.5, 1), (1.0, 1, 0)])
def test_limits_that_mean_nothing_are_refused(rate: float, burst: float, most_keys: int) -> None:
    with pytest.raises(ValueError, match="rate is"):
        TokenBuckets(rate, burst, most_keys)


@given(
    rate=st.floats(0.1, 100.0),
    burst=st.floats(1.0, 50.0),
    gaps_s=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=200),
)
def test_no_more_pass_than_the_burst_and_the_rate_allow(rate: float, burst: float, gaps_s: list[float]) -> None:
    buckets = TokenBuckets(rate, burst)
    now_s, passed = 0.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        wait_s = buckets.take("a", now_s)
        passed += not wait_s
        assert wait_s <= 1 / rate + 1e-9
        assert passed <= burst + now_s * rate + 1e-6


def test_of_a_limit_that_is_shared_out_a_part_passes_which_may_change_at_any_time() -> None:
    buckets = TokenBuckets(rate=10.0, burst=10)
    assert [buckets.take("a", 0.0, 0.5) > 0 for _ in range(6)] == [False] * 5 + [True]
    assert buckets.take("a", 0.0, 0.5) == pytest.approx(0.2)
    assert buckets.take("a", 0.1, 1.0) == 0.0, "more from now on"
    assert [buckets.take("a", 100.0, 0.2) > 0 for _ in range(3)] == [False, False, True], "and less"
    assert [buckets.take("b", 0.0, 0.01) > 0 for _ in range(2)] == [False, True], "one fits into any bucket"


def test_a_long_key_is_told_from_others_and_not_kept_as_it_is() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1)
    first, second = "x" * 100_000 + "1", "x" * 100_000 + "\ud800"
    assert [buckets.take(key, 0.0) > 0 for key in (first, second, first, second)] == [False, False, True, True]
    assert all(len(key) <= 200 for key in buckets._buckets)
