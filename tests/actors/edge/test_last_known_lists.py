"""Lists that stand in for a backend that does not answer: for how long, how many, how long ones."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.edge.last_known_lists import GRACE_S, MOST_BYTES, MOST_LISTS, LastKnownLists

KEY = ("files", "tools/list", "2026-07-28")


def test_a_list_stands_in_until_its_time_has_passed() -> None:
    lists = LastKnownLists()
    assert lists.recall(KEY, 0.0) is None
    lists.remember(KEY, [b"one", b"two"], 5.0)
    assert lists.recall(KEY, 5.0 + GRACE_S) == ((b"one", b"two"), GRACE_S)
    assert lists.recall(KEY, 5.1 + GRACE_S) is None
    assert lists.recall(KEY, 5.0) is None, "it takes no memory any more"


def test_the_newest_list_counts() -> None:
    lists = LastKnownLists()
    lists.remember(KEY, [b"old"], 0.0)
    lists.remember(KEY, [b"new"], 1.0)
    assert lists.recall(KEY, 2.0) == ((b"new",), 1.0)


def test_the_number_of_lists_is_bounded_and_the_oldest_goes_first() -> None:
    lists = LastKnownLists()
    keys = [(str(number), "tools/list", "2026-07-28") for number in range(MOST_LISTS + 1)]
    for key in keys:
        lists.remember(key, [b"x"], 0.0)
    assert [key for key in keys if lists.recall(key, 0.0) is None] == keys[:1]


@pytest.mark.parametrize(("size", "is_kept"), [(0, True), (1, False)])
def test_a_list_at_the_size_limit_is_kept_and_one_past_it_forgotten(size: int, is_kept: bool) -> None:
    lists = LastKnownLists()
    lists.remember(KEY, [b"small"], 0.0)
    lists.remember(KEY, [b"x" * MOST_BYTES, b"y" * size], 0.0)
    assert (lists.recall(KEY, 0.0) is not None) is is_kept


def test_lists_of_a_backend_that_was_replaced_are_forgotten() -> None:
    lists = LastKnownLists()
    others = [("mail", "tools/list", "2026-07-28"), ("files", "prompts/list", "2025-11-25")]
    for key in (KEY, *others):
        lists.remember(key, [b"x"], 0.0)
    lists.forget({"files", "nobody"})
    assert [lists.recall(key, 1.0) is not None for key in (KEY, *others)] == [False, True, False]
