"""Pages that wait for their readers: for how long, how many bytes, and that nobody reads another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.edge.held_pages import HELD_S, MOST_BYTES, HeldPages, PagesKey

KEY: PagesKey = ("session", "", "tools/list", "2025-11-25")


def key_of(name: str) -> PagesKey:
    return (name, *KEY[1:])


def test_a_page_is_found_by_its_first_item_until_its_time_has_passed() -> None:
    held = HeldPages()
    held.hold(KEY, {1000: b"second", 2000: b"third"}, 5.0)
    assert [held.find(KEY, item, 5.0) for item in (0, 1000, 2000, 1001)] == [None, b"second", b"third", None]
    assert held.find(KEY, 1000, 4.9 + HELD_S) == b"second"
    assert held.find(KEY, 1000, 5.0 + HELD_S) is None


@pytest.mark.parametrize("place", range(4))
def test_nobody_reads_what_another_session_endpoint_method_or_revision_has_gathered(place: int) -> None:
    held = HeldPages()
    held.hold(KEY, {1000: b"second"}, 0.0)
    assert held.find((*KEY[:place], "other", *KEY[place + 1 :]), 1000, 0.0) is None


def test_a_list_that_is_gathered_again_takes_the_place_of_the_one_before() -> None:
    held = HeldPages()
    held.hold(KEY, {1000: b"old", 2000: b"older"}, 0.0)
    held.hold(KEY, {1000: b"new"}, 1.0)
    assert (held.find(KEY, 1000, 2.0), held.find(KEY, 2000, 2.0)) == (b"new", None)
    held.hold(KEY, {}, 3.0)
    assert held.find(KEY, 1000, 3.0) is None


def test_at_the_bound_all_are_held_and_past_it_the_oldest_goes() -> None:
    held = HeldPages()
    held.hold(key_of("a"), {1000: b"x" * (MOST_BYTES - 1)}, 0.0)
    held.hold(key_of("b"), {1000: b"x"}, 1.0)
    assert held.find(key_of("a"), 1000, 1.0) is not None
    held.hold(key_of("c"), {1000: b"x"}, 2.0)
    assert [held.find(key_of(name), 1000, 2.0) is not None for name in "abc"] == [False, True, True]
    held.hold(key_of("d"), {1000: b"x" * (MOST_BYTES + 1)}, 3.0)
    assert [held.find(key_of(name), 1000, 3.0) is not None for name in "bcd"] == [True, True, False]


def test_other_backends_leave_nothing_of_what_was_gathered() -> None:
    held = HeldPages()
    held.hold(KEY, {1000: b"second"}, 0.0)
    held.forget_all()
    assert held.find(KEY, 1000, 0.0) is None
    held.hold(KEY, {1000: b"x" * MOST_BYTES}, 0.0)
    assert held.find(KEY, 1000, 0.0) is not None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, MOST_BYTES), st.integers(0, 40)), max_size=12))
def test_what_is_held_is_counted_and_a_sweep_leaves_nothing_of_old(steps: list[tuple[str, int, int]]) -> None:
    """A step: whose list, its bytes, seconds until the next."""
    held, now_s = HeldPages(), 0.0
    for name, size, wait_s in steps:
        held.hold(key_of(name), {1000: bytes(size)}, now_s)
        now_s += wait_s
        held.sweep(now_s)
        kept = sum(len(held.find(key_of(each), 1000, now_s) or b"") for each in "abc")
        assert kept == held._byte_count <= MOST_BYTES
