"""Mail of another cell is read when both the mail and the news that the cell runs are there, in whichever order they come."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.node.cell_mail import MOST_EARLY, CellMail


def test_mail_of_a_cell_that_is_known_is_read_at_once() -> None:
    mail = CellMail()
    assert list(mail.cells_changed({"cell/1": 1})) == []
    assert mail.is_due("cell/1", 1, "hello")
    assert list(mail.cells_changed({"cell/1": 1})) == []


def test_mail_that_is_early_waits_until_its_sender_is_told_of() -> None:
    mail = CellMail()
    assert not mail.is_due("cell/1", 1, "first")
    assert not mail.is_due("cell/1", 1, "second")
    assert list(mail.cells_changed({"cell/2": 1})) == []
    assert list(mail.cells_changed({"cell/1": 1, "cell/2": 1})) == [("cell/1", "first"), ("cell/1", "second")]


def test_mail_of_a_successor_waits_while_its_predecessor_is_thought_to_run() -> None:
    mail = CellMail()
    list(mail.cells_changed({"cell/1": 1}))
    assert not mail.is_due("cell/1", 2, "new")
    assert mail.is_due("cell/1", 1, "old")
    assert list(mail.cells_changed({"cell/1": 2})) == [("cell/1", "new")]


def test_late_mail_of_a_cell_that_has_been_replaced_is_dropped() -> None:
    """That one leaves, say: it would be taken for news of its successor."""
    mail = CellMail()
    list(mail.cells_changed({"cell/1": 2}))
    assert not mail.is_due("cell/1", 1, "I leave")
    list(mail.cells_changed({}))
    assert not mail.is_due("cell/1", 2, "I leave, too")  # it may be on its way back
    assert list(mail.cells_changed({"cell/1": 3})) == []
    assert list(mail.cells_changed({"cell/1": 3})) == []


def test_mail_of_another_node_waits_until_its_cell_is_told_of_in_this_membership_of_both_nodes() -> None:
    """Incarnations are (epoch of this node, of the other one, of its cell)."""
    mail = CellMail()
    list(mail.cells_changed({"cell/1": 3, "b/cell/0": (5, 7, 1)}))
    assert mail.is_due("b/cell/0", (5, 7, 1), "hello")
    for early in ((5, 7, 2), (5, 8, 1)):
        assert not mail.is_due("b/cell/0", early, early)
    assert list(mail.cells_changed({"cell/1": 3})) == [], "this node is cut off"
    assert list(mail.cells_changed({"cell/1": 3, "b/cell/0": (5, 7, 2)})) == [("b/cell/0", (5, 7, 2))]
    assert not mail.is_due("b/cell/0", (5, 7, 1), "late")
    assert list(mail.cells_changed({"b/cell/0": (5, 8, 1)})) == [("b/cell/0", (5, 8, 1))]
    assert not mail.is_due("b/cell/0", (5, 7, 2), "late")
    assert not mail.is_due("b/cell/0", (4, 8, 1), "to this node before it joined anew")
    assert mail.is_due("b/cell/0", (5, 8, 1), "hello")


def test_no_more_waits_than_may() -> None:
    mail = CellMail()
    for number in range(MOST_EARLY + 1):
        mail.is_due("cell/1", 1, number)
    assert [message for _, message in mail.cells_changed({"cell/1": 1})] == list(range(1, MOST_EARLY + 1))


@attrs.frozen
class Heavy:
    name: str
    weight_bytes: int


def read(mail: CellMail, *cells: str) -> list[str]:
    """Names of what waits of these cells, oldest first."""
    return [message.name for _, message in mail.cells_changed(dict.fromkeys(cells, 1)) if isinstance(message, Heavy)]


def test_of_one_cell_half_of_the_bytes_may_wait_and_its_oldest_makes_room_for_more() -> None:
    mail = CellMail(most_bytes=1_000)
    for name in ("first", "second", "third"):
        mail.is_due("cell/1", 1, Heavy(name, 250))
    assert mail.lost_count == 1
    mail.is_due("cell/1", 1, Heavy("more than the half", 501))
    assert mail.lost_count == 2
    assert read(mail, "cell/1") == ["second", "third"]
    mail.is_due("cell/2", 1, Heavy("the half", 500))
    assert (read(mail, "cell/2"), mail.lost_count) == (["the half"], 2)


def test_of_all_cells_no_more_bytes_wait_than_may_and_the_oldest_of_all_makes_room() -> None:
    mail = CellMail(most_bytes=1_000)
    for cell in ("cell/1", "cell/2", "cell/3"):
        mail.is_due(cell, 1, Heavy(f"of {cell}", 400))
    assert (mail.lost_count, read(mail, "cell/1", "cell/2", "cell/3")) == (1, ["of cell/2", "of cell/3"])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans()), max_size=60))
def test_what_waits_never_weighs_more_than_it_may_and_what_is_read_has_not_been_lost(steps: list[tuple[str, int, bool]]) -> None:
    mail = CellMail(most_bytes=100)
    said = read_count = 0
    waiting: list[Heavy] = []
    for cell, weight, is_told in steps:
        if is_told:
            waiting = [message for _, message in mail.cells_changed({cell: 1}) if isinstance(message, Heavy)]
            assert sum(message.weight_bytes for message in waiting) <= 50
            read_count += len(waiting)
            assert list(mail.cells_changed({})) == []
        else:
            said += 1
            mail.is_due(cell, 1, Heavy(cell, weight))
    rest = list(mail.cells_changed(dict.fromkeys("abc", 1)))
    assert sum(message.weight_bytes for _, message in rest if isinstance(message, Heavy)) <= 100
    assert read_count + len(rest) + mail.lost_count == said


@given(st.lists(st.one_of(st.integers(1, 4), st.none()), max_size=40))
def test_what_an_incarnation_says_is_read_once_and_in_order_if_it_is_told_of_at_all(steps: list[int | None]) -> None:
    """A number: that incarnation says something. None: the next incarnation is told of."""
    mail, told = CellMail(), 0
    said: dict[int, list[int]] = {}
    read: dict[int, list[int]] = {}
    for place, step in enumerate(steps):
        if step is None:
            told += 1
            for _, message in mail.cells_changed({"cell/1": told}):
                assert isinstance(message, tuple)
                read.setdefault(message[0], []).append(message[1])
        elif step >= told:
            said.setdefault(step, []).append(place)
            if mail.is_due("cell/1", step, (step, place)):
                read.setdefault(step, []).append(place)
        else:
            assert not mail.is_due("cell/1", step, (step, place))
    assert read == {incarnation: places for incarnation, places in said.items() if incarnation <= told}
