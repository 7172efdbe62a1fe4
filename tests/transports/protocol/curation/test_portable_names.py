"""Names that every client takes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.curation.portable_names import is_marked, portable, room_beside

PORTABLE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@pytest.mark.parametrize(
    ("name", "longest", "made"),
    [
        ("read_file", 64, "read_file"),
        ("x" * 64, 64, "x" * 64),
        ("x" * 65, 64, "x" * 55 + "_9537c5fd"),
        ("admin.tools.list", 64, "admin_tools_list_ce33de31"),
        ("größe", 64, "gr_e_d353a267"),
        ("read_file_of_a_tree", 16, "read_fi_aecc1d05"),
    ],
)
def test_a_name_is_made_portable_by_a_fixed_rule(name: str, longest: int, made: str) -> None:
    assert portable(name, longest) == made


@given(st.text(max_size=200), st.integers(16, 64))
def test_whatever_the_name_is_what_is_made_of_it_is_portable_and_stays_so(name: str, longest: int) -> None:
    made = portable(name, longest)
    assert PORTABLE.fullmatch(made)
    assert len(made) <= longest
    assert portable(made, longest) == made
    assert made == name or is_marked(made)


def test_names_that_differ_only_in_what_is_lost_are_told_apart() -> None:
    assert len({portable(name) for name in ("a.b", "a/b", "a b", "a_b", "a" * 100, "a" * 101)}) == 6


@pytest.mark.parametrize(("prefix", "room"), [("", 64), ("files__", 57), ("x" * 48, 16), ("x" * 66, 16)])
def test_a_prefix_takes_of_the_room_but_leaves_some(prefix: str, room: int) -> None:
    assert room_beside(prefix) == room
