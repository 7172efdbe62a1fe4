"""Bounded loads: a table of capacities, and that there is always room for a call and never more than the bound."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.routing.bounded_load import Loads
from mcp_gateway.transports.ports.replica_id import ReplicaId

ALL = [ReplicaId("b", name) for name in ("x", "y", "z")]
X, Y, Z = ALL


def loads(*counts: int) -> Loads:
    found = Loads()
    for replica, count in zip(ALL, counts, strict=True):
        for _ in range(count):
            found.begin(replica)
    return found


@pytest.mark.parametrize(
    ("counts", "factor", "with_room"),
    [
        ((0, 0, 0), 1.25, [X, Y, Z]),
        ((1, 0, 0), 1.25, [Y, Z]),  # ceil(1.25 * 2 / 3) is 1
        ((1, 1, 1), 1.25, [X, Y, Z]),  # ceil(1.25 * 4 / 3) is 2
        ((2, 1, 1), 1.25, [X, Y, Z]),  # ceil(1.25 * 5 / 3) is 3
        ((3, 1, 1), 1.25, [Y, Z]),
        ((9, 0, 0), 3.0, [X, Y, Z]),
        ((9, 0, 0), 2.0, [Y, Z]),
    ],
)
def test_there_is_room_up_to_the_bound_and_not_past_it(counts: tuple[int, int, int], factor: float, with_room: object) -> None:
    found = loads(*counts)
    assert [replica for replica in ALL if found.has_room(replica, ALL, factor)] == with_room


def test_what_is_forgotten_ends_without_harm() -> None:
    found = loads(2, 1, 0)
    found.forget_all_but({X})
    for replica in (X, Y, Y):
        found.end(replica)
    assert [found.of(replica) for replica in ALL] == [1, 0, 0]


@given(
    st.floats(1.01, 4.0),
    st.lists(st.tuples(st.booleans(), st.sampled_from(ALL)), max_size=200),
)
def test_a_call_always_finds_room_and_no_replica_is_ever_given_more_than_its_bound(
    factor: float, steps: list[tuple[bool, ReplicaId]]
) -> None:
    found, running = Loads(), dict.fromkeys(ALL, 0)
    for is_end, preferred in steps:
        if is_end and running[preferred]:
            found.end(preferred)
            running[preferred] -= 1
        elif not is_end:
            order = ALL[ALL.index(preferred) :] + ALL[: ALL.index(preferred)]
            taker = next(replica for replica in order if found.has_room(replica, ALL, factor))
            found.begin(taker)
            running[taker] += 1
            assert running[taker] <= math.ceil(factor * sum(running.values()) / len(ALL))
        assert {replica: found.of(replica) for replica in ALL} == running
