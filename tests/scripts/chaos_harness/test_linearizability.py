"""Histories that one key could have had, and histories that none could."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.chaos_harness.linearizability import Operation, unexplained


def read(began_s: float, ended_s: float, held: str) -> Operation:
    return Operation(began_s, ended_s, held, held)


def swap(began_s: float, ended_s: float, before: str, after: str) -> Operation:
    return Operation(began_s, ended_s, before, after)


GOOD = {
    "nothing has happened": [],
    "one after the other": [swap(0, 1, "", "a"), read(2, 3, "a"), swap(4, 5, "a", "b"), read(6, 7, "b")],
    "a read at the time of a write sees it or does not": [swap(0, 9, "", "a"), read(1, 2, "a"), read(1, 2, "")],
    "writes at one time, in the order that fits": [swap(0, 9, "a", "b"), swap(0, 9, "", "a")],
    "what nobody knows of was carried out, and late": [swap(0, math.inf, "", "a"), read(5, 6, ""), read(8, 9, "a")],
    "what nobody knows of was never carried out": [swap(0, math.inf, "", "a"), swap(5, 6, "", "b"), read(8, 9, "b")],
}
BAD = {
    "two got what only one can get": [swap(0, 1, "", "a"), swap(2, 3, "", "b")],
    "two at one time got it": [swap(0, 9, "", "a"), swap(0, 9, "", "b")],
    "a read sees what was over before it began": [swap(0, 1, "", "a"), swap(2, 3, "a", "b"), read(4, 5, "a")],
    "a read sees what nobody wrote": [swap(0, 1, "", "a"), read(2, 3, "c")],
    "a read sees what has not begun": [read(0, 1, "a"), swap(2, 3, "", "a")],
    "time goes back from one read to the next": [swap(0, 9, "", "a"), read(1, 2, "a"), read(3, 4, "")],
    "what nobody knows of was carried out twice": [
        *(swap(0, math.inf, "", "a"), read(1, 2, "a"), swap(3, 4, "a", "b"), swap(5, 6, "a", "c"))
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_of_one_key_is_explained(name: str) -> None:
    assert unexplained(GOOD[name]) == ()


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_no_key_can_have_is_not(name: str) -> None:
    assert unexplained(BAD[name])


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Of a real key: each operation happens at one moment within its time."""
    chance = random.Random(draw(st.integers()))
    held, history = "", []
    for number in range(draw(st.integers(1, 30))):
        moment = float(number)
        began_s, ended_s = moment - chance.random() * 5, moment + chance.random() * 5
        if chance.random() < 0.5:
            history.append(read(began_s, ended_s, held))
        else:
            history.append(swap(began_s, math.inf if chance.random() < 0.2 else ended_s, held, str(number)))
            held = str(number)
    chance.shuffle(history)
    return history


@given(histories())
def test_whatever_a_real_key_does_is_explained(history: list[Operation]) -> None:
    assert unexplained(history) == ()


@given(histories())
def test_a_second_winner_is_found_in_any_history(history: list[Operation]) -> None:
    """Of each swap there is one winner; the second one has another value, and its outcome is known."""
    swaps = [each for each in history if each.before != each.after and each.is_certain]
    if swaps:
        assert unexplained([*history, swap(100, 101, swaps[0].before, "other")])


def test_a_thousand_operations_are_judged_in_a_moment() -> None:
    history = [swap(number, number + 2.5, str(number - 1) if number else "", str(number)) for number in range(1_000)]
    assert unexplained(history) == ()
    assert unexplained([*history, swap(900, 901, "3", "x")])
