"""A chain of lines: nothing in it can be changed, left out or put in unseen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.storage.audit_chain import FIRST, ChainCheck, ChainEnd, chained, end_at, head_of


def chain(count: int) -> list[bytes]:
    lines, end = [], ChainEnd()
    for index in range(count):
        line, end = chained(end, {"subject": f"s{index}", "outcome": "allowed"})
        lines.append(line.removesuffix(b"\n"))
    return lines


def problems(lines: list[bytes]) -> list[str]:
    check = ChainCheck()
    return [problem for line in lines if (problem := check.take(line)) is not None]


def test_a_chain_goes_on_where_its_last_line_ends() -> None:
    lines = chain(3)
    assert end_at(lines[-1]) == ChainEnd(3, head_of(lines[-1]))
    line, _ = chained(end_at(lines[-1]), {})
    assert problems([*lines, line.removesuffix(b"\n")]) == []


def test_it_may_begin_anywhere_but_not_before_the_first() -> None:
    assert problems(chain(5)[2:]) == []
    assert problems([chain(1)[0].replace(FIRST.encode(), b"1" * 64)]) == ["is the first entry and names one before it"]


@given(count=st.integers(2, 6), data=st.data())
def test_a_change_a_gap_a_repeat_and_another_order_break_it(count: int, data: st.DataObject) -> None:
    """But for the last line alone, which only the next one vouches for, and but for what is cut off at either end."""
    lines = chain(count)
    at = data.draw(st.integers(0, count - 2))
    changed = lines[at].replace(b"allowed", b"denied!")
    assert problems([*lines[:at], changed, *lines[at + 1 :]])
    if at:
        assert problems(lines[:at] + lines[at + 1 :])
    assert problems([*lines[: at + 1], *lines[at:]])
    assert problems([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"null", b'{"number":"1"}', b'{"number":true}', b'{"number":0}', b"\xff", b"[" * 9999]
)
def test_what_is_no_entry_is_told_apart(line: bytes) -> None:
    assert problems([line])[0].startswith(("is no entry", "has no number"))
    assert end_at(line).number in (0, True)
