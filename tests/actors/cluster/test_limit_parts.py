"""Parts of limits: never more than the limit in all, whatever is lost; fair; where it is asked; taken over from the dead."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.cluster.limit_parts import (
    KEPT_BACK,
    MOST_ROWS,
    MOST_WANTED,
    NEW_PART,
    Allocator,
    Demand,
    Held,
    fair_parts,
)

CLIENTS = ("ada", "bob")
_SLIP = 1e-6  # of sums of floats


@attrs.define
class Cluster:
    """Nodes that report to the first of them in turn; what is lost is said by the test. asked: {node: {client: part}}."""

    held: dict[str, Held]
    asked: dict[str, dict[str, float]] = attrs.Factory(dict)
    allocator: Allocator = attrs.Factory(lambda self: Allocator(self.held), takes_self=True)

    def report(self, node: str, *, is_answer_lost: bool = False) -> None:
        answer = self.allocator.answer(node, self.held[node], self.asked.get(node, {}))
        if not is_answer_lost:
            self.held[node] = answer

    def rounds(self, count: int) -> None:
        for _ in range(count):
            for node in self.held:
                self.report(node)

    def sum_of(self, client: str) -> float:
        return sum(held.of(client) for held in self.held.values())

    def change_members(self, *, gone: str | None = None, new: str | None = None) -> None:
        if gone is not None:
            del self.held[gone]
        if new is not None:
            self.held[new] = Held()
        self.allocator = Allocator(self.held)


def cluster(count: int) -> Cluster:
    return Cluster({f"node-{number}": Held() for number in range(count)})


# ---- fair parts


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 50), max_size=20), st.integers(1, 20))
def test_all_of_a_limit_is_shared_out_and_whoever_wants_more_never_gets_less(wanted: dict[str, float], others: int) -> None:
    count = len(wanted) + others
    parts, part_of_others = fair_parts(wanted, count)
    assert parts.keys() == wanted.keys()
    assert sum(parts.values()) + others * part_of_others == pytest.approx(1.0)
    assert all(part >= part_of_others - _SLIP for part in parts.values())
    in_order = [parts[node] for node in sorted(wanted, key=lambda each: wanted[each])]
    assert in_order == sorted(in_order) or max(abs(a - b) for a, b in zip(in_order, sorted(in_order), strict=True)) < _SLIP
    least = KEPT_BACK / count
    assert part_of_others >= least - _SLIP
    if sum(max(want - least, 0) for want in wanted.values()) <= 1 - KEPT_BACK:
        assert all(parts[node] >= want - _SLIP for node, want in wanted.items())


def test_who_wants_less_than_an_even_part_gets_it_and_the_others_share_the_rest_evenly() -> None:
    parts, _ = fair_parts({"a": 5.0, "b": 0.25, "c": 5.0}, 3)
    assert parts == pytest.approx({"a": 0.375, "b": 0.25, "c": 0.375})
    assert fair_parts({}, 2) == ({}, pytest.approx(0.5))


# ---- over time


def test_a_client_that_asks_at_one_node_gets_nearly_all_of_its_limit_there_and_gives_it_back_when_it_goes() -> None:
    nodes = cluster(3)
    nodes.rounds(5)
    assert [held.of("ada") for held in nodes.held.values()] == pytest.approx([1 / 3] * 3)
    nodes.asked = {"node-1": {"ada": 2.0}}
    nodes.rounds(3)
    assert nodes.held["node-1"].of("ada") == pytest.approx(1 - KEPT_BACK * 2 / 3)
    assert nodes.held["node-1"].of("bob") == pytest.approx(1 / 3)
    nodes.asked = {}
    nodes.rounds(4)
    assert [held.of("ada") for held in nodes.held.values()] == pytest.approx([1 / 3] * 3)
    assert nodes.allocator.row_count == 0


def test_a_client_that_keeps_to_what_it_is_allowed_is_allowed_more_second_by_second() -> None:
    nodes = cluster(2)
    nodes.rounds(3)
    for _ in range(20):
        nodes.asked = {"node-0": {"ada": nodes.held["node-0"].of("ada")}}
        nodes.rounds(1)
    assert nodes.held["node-0"].of("ada") > 0.93


def test_the_part_of_a_node_that_is_gone_falls_to_the_others_though_it_decided() -> None:
    nodes = cluster(3)
    nodes.asked = {"node-0": {"ada": 1.0}}
    nodes.rounds(5)
    nodes.change_members(gone="node-0")
    nodes.asked = {"node-1": {"ada": 1.0}, "node-2": {"ada": 1.0}}
    nodes.rounds(4)
    assert [held.of("ada") for held in nodes.held.values()] == pytest.approx([0.5, 0.5])


def test_nobody_gets_more_before_all_members_have_said_what_they_hold() -> None:
    nodes = cluster(2)
    nodes.rounds(4)
    nodes.change_members(new="node-2")
    for _ in range(5):
        nodes.report("node-0")
        nodes.report("node-2")
    assert [nodes.held[f"node-{number}"].default for number in (0, 1, 2)] == pytest.approx([0.5, 0.5, NEW_PART])
    nodes.rounds(3)
    assert [held.default for held in nodes.held.values()] == pytest.approx([1 / 3] * 3)


def test_clients_beyond_the_bound_of_rows_have_even_parts_and_those_of_before_keep_theirs() -> None:
    nodes = cluster(2)
    nodes.rounds(4)
    many = {f"c{number}": 1.0 for number in range(MOST_ROWS)}
    nodes.asked = {"node-0": many}
    nodes.rounds(3)
    nodes.asked["node-0"] = {**many, "late": 1.0}
    nodes.rounds(3)
    assert nodes.allocator.row_count == MOST_ROWS
    assert nodes.held["node-0"].of("late") == pytest.approx(0.5)
    assert nodes.held["node-0"].of(f"c{MOST_ROWS - 1}") == pytest.approx(1 - KEPT_BACK / 2)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("report"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("ask"), st.integers(0, 9), st.sampled_from(CLIENTS), st.floats(0, 3)),
        st.tuples(st.just("gone"), st.integers(0, 9)),
        st.tuples(st.just("new"), st.integers(10, 12)),
    ),
    max_size=150,
)


@given(count=st.integers(1, 6), settled=st.integers(0, 4), steps=STEPS)
def test_whatever_is_lost_and_whoever_comes_and_goes_all_parts_together_are_the_limit_at_most(
    count: int, settled: int, steps: list[tuple[object, ...]]
) -> None:
    """A node that comes brings NEW_PART with it; of what is more than 1 then, nothing is given to anybody."""
    nodes = cluster(count)
    nodes.rounds(settled)
    allowed = dict.fromkeys((*CLIENTS, "nobody"), 1.0)
    for step in steps:
        node = list(nodes.held)[step[1] % len(nodes.held)]  # type: ignore[operator]
        match step:
            case ("report", _, bool(is_lost)):
                nodes.report(node, is_answer_lost=is_lost)
            case ("ask", _, str(client), float(part)):
                nodes.asked.setdefault(node, {})[client] = part
            case ("gone", _) if len(nodes.held) > 1:
                nodes.change_members(gone=node)
            case ("new", int(number)) if f"node-{number}" not in nodes.held:
                nodes.change_members(new=f"node-{number}")
                allowed = {client: max(1.0, nodes.sum_of(client)) for client in allowed}
        for client, most in allowed.items():
            assert nodes.sum_of(client) <= most + _SLIP
            allowed[client] = max(1.0, min(most, nodes.sum_of(client)))
    # In the end all of it is given out, by what is asked.
    nodes.rounds(6)
    for client in allowed:
        assert nodes.sum_of(client) == pytest.approx(1.0)
        wanted = {node: nodes.asked[node][client] for node in nodes.held if client in nodes.asked.get(node, {})}
        fair, of_others = fair_parts(wanted, len(nodes.held))
        assert {node: held.of(client) for node, held in nodes.held.items()} == pytest.approx(
            {node: fair.get(node, of_others) for node in nodes.held}
        )


# ---- what is reported


def test_what_cells_were_asked_is_added_up_and_fades_by_half_each_second() -> None:
    demand = Demand()
    demand.asked({"ada": 0.5, "bob": 0.001})
    demand.asked({"ada": 0.25})
    assert demand.next_report() == {"ada": 0.75}
    assert demand.next_report() == {"ada": 0.375}
    demand.asked({"ada": 0.2})
    assert demand.next_report() == {"ada": 0.2}
    assert [demand.next_report() for _ in range(5)][-1] == {}


def test_of_more_clients_than_are_reported_those_who_ask_most_are() -> None:
    demand = Demand()
    demand.asked({f"c{number}": 0.1 + number for number in range(MOST_WANTED + 1)})
    assert demand.next_report().keys() == {f"c{number}" for number in range(1, MOST_WANTED + 1)}
