"""How many calls may be parked: at each limit, and past it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.upstream.bridge.parked_calls import ParkedCalls, ParkingLimits

LIMITS = ParkingLimits(in_all=5, per_client=2, per_backend=3, in_all_bytes=100)


@pytest.mark.parametrize(
    ("parked", "call", "problem"),
    [
        ([("a", "x"), ("b", "x"), ("a", "y"), ("b", "y")], ("c", "x"), ""),
        ([("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"), ("c", "x")], ("c", "y"), "5 calls wait"),
        ([("a", "x")], ("a", "y"), ""),
        ([("a", "x"), ("a", "y")], ("a", "z"), "2 calls of this client"),
        ([("a", "x"), ("b", "x")], ("c", "x"), ""),
        ([("a", "x"), ("b", "x"), ("c", "x")], ("d", "x"), "3 calls to backend 'x'"),
    ],
)
def test_each_limit_admits_as_many_as_it_says_and_no_more(
    parked: list[tuple[str, str]], call: tuple[str, str], problem: str
) -> None:
    calls = ParkedCalls(LIMITS)
    for number, (client, backend) in enumerate(parked):
        assert calls.park(str(number), client, backend) == ""
    refused = calls.park("new", *call)
    assert refused.startswith(problem)
    assert bool(refused) == bool(problem)
    calls.assert_consistent()


def test_a_call_that_leaves_makes_room_and_one_that_is_parked_already_takes_none() -> None:
    calls = ParkedCalls(LIMITS)
    assert [calls.park(name, "a", "x") for name in ("1", "2", "2")] == ["", "", ""]
    assert calls.park("3", "a", "x")
    calls.resume("1")
    calls.resume("1")
    assert calls.park("3", "a", "x") == ""
    assert len(calls) == 2


def test_a_call_whose_client_has_answered_is_unfinished_until_it_ends() -> None:
    """It may ask again, and its client would come back to it."""
    calls = ParkedCalls(LIMITS)
    assert calls.unfinished_count == 0
    calls.park("1", "a", "x")
    assert calls.park("2", "a", "x" * 9) == ""
    assert calls.park("3", "a", "x") != ""
    calls.resume("1")
    assert (len(calls), calls.unfinished_count) == (1, 2)
    calls.end("1")
    calls.end("2")
    calls.end("3")
    assert (len(calls), calls.unfinished_count) == (0, 0)


def test_the_requests_of_one_client_that_wait_hold_a_share_of_the_bytes_and_no_more() -> None:
    calls = ParkedCalls(LIMITS)
    assert calls.park("1", "a", "x", 20) == ""
    assert calls.park("2", "a", "x", 6).startswith("the calls that wait for their clients hold too many bytes")
    assert calls.park("3", "b", "x", 25) == ""
    calls.resume("1")
    assert calls.park("2", "a", "x", 25) == ""
    calls.assert_consistent()


STEPS = st.tuples(
    st.booleans(), st.booleans(), st.integers(0, 9), st.sampled_from("abc"), st.sampled_from("xy"), st.integers(0, 40)
)


@given(st.lists(STEPS))
def test_the_counts_are_those_of_the_parked_calls(steps: list[tuple[bool, bool, int, str, str, int]]) -> None:
    calls = ParkedCalls(LIMITS)
    for is_arrival, is_over, name, client, backend, byte_count in steps:
        if is_arrival:
            calls.park(str(name), client, backend, byte_count)
        else:
            (calls.end if is_over else calls.resume)(str(name))
        calls.assert_consistent()
