"""Who waits for a request, and who makes room: never the one that comes, first those that have brought nothing yet."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.waiting_connections import WaitingConnections


@attrs.define(eq=False)
class Connection:
    holder: str
    has_served: bool = False
    has_begun: bool = False


def ledger(limit: int = 100, share: float = 0.1) -> WaitingConnections[Connection]:
    return WaitingConnections(limit, share, header_timeout_s=10.0, idle_timeout_s=300.0)


def came(waiting: WaitingConnections[Connection], connections: list[Connection], now_s: float = 0) -> list[Connection]:
    """Who makes room once all of them have come."""
    has_room = [waiting.wait(each, now_s) for each in connections]
    given_up = waiting.make_room()
    assert len(given_up) == has_room.count(False)
    waiting.assert_consistent()
    return given_up


def test_past_its_share_a_holder_loses_its_own_oldest_and_nobody_else_any() -> None:
    waiting = ledger()
    other = Connection("b")
    waiting.wait(other, 0)
    own = [Connection("a") for _ in range(12)]
    assert came(waiting, own[:10]) == []
    assert came(waiting, own[10:]) == own[:2]
    waiting.leave(other)  # is still there
    assert len(waiting) == 10


def test_a_burst_whose_requests_come_at_once_is_no_crowd() -> None:
    waiting = ledger()
    burst = [Connection("a") for _ in range(30)]
    assert [waiting.wait(each, 0) for each in burst] == [True] * 10 + [False] * 20
    for each in burst[5:25]:
        waiting.leave(each)
    assert waiting.make_room() == []
    assert len(waiting) == 10


def test_those_that_have_served_are_given_up_last() -> None:
    waiting = ledger()
    served = [Connection("a", has_served=True) for _ in range(4)]
    new = [Connection("a") for _ in range(7)]
    assert came(waiting, [*served, *new]) == [new[0]]
    for each in new[1:]:
        waiting.leave(each)
    assert came(waiting, [Connection("a", has_served=True) for _ in range(7)]) == [served[0]]


def test_who_comes_new_to_a_crowd_that_has_served_is_not_given_up() -> None:
    waiting = ledger(limit=4)
    served = [Connection("a", has_served=True) for _ in range(4)]
    assert came(waiting, served) == []
    assert came(waiting, [Connection("a")]) == [served[0]]


def test_where_all_is_full_the_longest_of_all_makes_room() -> None:
    waiting = ledger(limit=8, share=0.5)
    crowd = [Connection(str(index)) for index in range(8)]
    assert came(waiting, crowd) == []
    assert came(waiting, [Connection("late")], 1) == [crowd[0]]
    assert waiting.give_up_longest(0) is crowd[1]


def test_nobody_is_given_up_at_once_whose_request_may_be_on_its_way() -> None:
    waiting = ledger()
    assert waiting.give_up_longest(5) is None
    served, new = Connection("a", has_served=True), Connection("b")
    waiting.wait(served, 4)
    waiting.wait(new, 6)
    assert waiting.give_up_longest(3) is None
    assert waiting.give_up_longest(5) is served
    assert waiting.give_up_longest(5) is None
    assert waiting.give_up_longest(6) is new


@pytest.mark.parametrize(("is_served", "has_begun", "stays_s"), [(False, False, 10), (False, True, 10), (True, False, 300)])
def test_time_is_up_at_the_timeout_and_not_before(is_served: bool, has_begun: bool, stays_s: int) -> None:
    waiting = ledger()
    connection = Connection("a", is_served, has_begun)
    waiting.wait(connection, 5)
    assert waiting.overdue(5 + stays_s - 0.1) == []
    assert waiting.overdue(5 + stays_s) == [connection]
    assert len(waiting) == 0


def test_a_later_request_has_its_time_from_its_first_byte_on() -> None:
    waiting = ledger()
    connection = Connection("a", has_served=True)
    waiting.wait(connection, 0)
    assert waiting.overdue(299) == []
    connection.has_begun = True
    assert waiting.overdue(299.5) == waiting.overdue(309) == []
    assert waiting.overdue(309.5) == [connection]


def test_the_time_of_each_request_is_its_own() -> None:
    waiting = ledger()
    connection = Connection("a", has_served=True)
    for start_s in (0, 8, 16):
        waiting.wait(connection, start_s)
        connection.has_begun = True
        assert waiting.overdue(start_s + 7) == []
        waiting.leave(connection)
        connection.has_begun = False
        waiting.assert_consistent()


STEPS = ["wait", "wait", "leave", "begin", "overdue", "make room", "give up"]


@given(st.lists(st.tuples(st.integers(0, 19), st.sampled_from(STEPS), st.integers(0, 40))))
def test_the_ledger_stays_consistent(steps: list[tuple[int, str, int]]) -> None:
    waiting = ledger(limit=10, share=0.5)
    connections = [Connection(f"holder {index % 4}", has_served=index % 3 == 0) for index in range(20)]
    held: set[Connection] = set()
    now_s = 0.0
    for index, step, elapsed_s in steps:
        connection = connections[index]
        now_s += elapsed_s
        if step == "wait" and connection not in held:
            waiting.wait(connection, now_s)
            held.add(connection)
        elif step == "leave":
            waiting.leave(connection)
            held.discard(connection)
        elif step == "begin":
            connection.has_begun = not connection.has_begun
        elif step == "overdue":
            held -= set(waiting.overdue(now_s))
        elif step == "make room":
            held -= set(waiting.make_room())
            assert len(held) <= 10
        elif step == "give up":
            held.discard(waiting.give_up_longest(now_s - 10))  # type: ignore[arg-type]
        assert len(waiting) == len(held)
        waiting.assert_consistent()
