"""How much of one connection is read at a turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.downstream.server.read_turns import LEAST_BYTES, ReadTurns

MOST_BYTES = 16_384


@pytest.mark.parametrize(
    ("part_bytes", "byte_count"),
    [
        (6, LEAST_BYTES),  # empty fragments, or chunks of a byte
        (106, 6_784),  # pings: 64 of them
        (1_000, MOST_BYTES),
        (4_000_000, MOST_BYTES),
    ],
)
def test_a_turn_holds_some_sixty_parts_or_as_much_as_one_may_have(part_bytes: int, byte_count: int) -> None:
    turns = ReadTurns(MOST_BYTES)
    for _ in range(20):
        turns.took(turns.byte_count // part_bytes)
    assert turns.byte_count == pytest.approx(byte_count, rel=0.02)


def test_a_client_that_has_been_quick_with_large_messages_is_slow_again_after_one_turn_of_small_ones() -> None:
    turns = ReadTurns(MOST_BYTES)
    for _ in range(9):
        turns.took(0)
    assert turns.byte_count == MOST_BYTES
    turns.took(turns.byte_count // 6)
    assert turns.byte_count == LEAST_BYTES


@given(least=st.sampled_from([LEAST_BYTES, 8_192]), part_counts=st.lists(st.integers(0, 20_000), max_size=50))
def test_every_turn_has_some_bytes_and_none_too_many(least: int, part_counts: list[int]) -> None:
    turns = ReadTurns(MOST_BYTES, least)
    assert least <= turns.byte_count <= MOST_BYTES
    for count in part_counts:
        turns.took(count)
        assert least <= turns.byte_count <= MOST_BYTES
