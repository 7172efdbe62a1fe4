"""One budget of bytes for both directions: what a holder takes it has until it lets go, and one whole message always fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.config.settings import GatewaySettings
from mcp_gateway.transports.downstream.server.buffered_bytes import IN, OUT, BufferedBytes, HeldBytes

MB = 1_048_576


def buffered(**settings: object) -> BufferedBytes:
    return BufferedBytes(GatewaySettings(**settings))  # type: ignore[arg-type]


def test_what_is_read_and_what_waits_share_one_budget() -> None:
    bytes_of_cell = buffered(max_buffered_bytes=4 * MB, max_message_bytes=MB, max_share_per_address=0.5)
    reading, writing = bytes_of_cell.of("a", IN), bytes_of_cell.of("a", OUT)
    assert reading.hold(MB)
    assert writing.hold(MB)
    assert not reading.hold(MB + 1)
    assert not writing.hold(MB + 1)
    assert bytes_of_cell.held == {IN: MB, OUT: MB}
    others = [bytes_of_cell.of(address, IN) for address in "bc"]
    assert others[0].hold(2 * MB)
    assert not others[1].hold(1)
    assert reading.hold(MB - 1)
    assert others[1].hold(1)
    reading.release()
    reading.release()
    assert bytes_of_cell.held == {IN: 2 * MB + 1, OUT: MB}


@pytest.mark.parametrize(("cells", "limit"), [(1, 64 * MB), (4, 16 * MB), (64, 4 * MB)])
def test_a_cell_has_its_part_and_never_too_few_for_one_message(cells: int, limit: int) -> None:
    bytes_of_cell = buffered(max_buffered_bytes=64 * MB, max_share_per_address=0.01, cells=cells)
    assert bytes_of_cell.budget.limit == limit
    held = bytes_of_cell.of("a", IN)
    assert held.hold(4 * MB)
    assert not held.hold(4 * MB + 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000))))
def test_the_sum_is_that_of_all_holders(steps: list[tuple[int, int]]) -> None:
    bytes_of_cell = buffered(max_buffered_bytes=MB, max_message_bytes=1_024, max_share_per_address=0.002)
    holders: list[HeldBytes] = [bytes_of_cell.of(address, way) for address in ("a", "b") for way in (IN, OUT)]
    for index, amount in steps:
        before = holders[index].byte_count
        fits = holders[index].hold(amount)
        assert holders[index].byte_count == (amount if fits else before)
        for address, pair in (("a", holders[:2]), ("b", holders[2:])):
            assert sum(each.byte_count for each in pair) == bytes_of_cell.budget.held_by(address) <= 2_098
        assert sum(bytes_of_cell.held.values()) == bytes_of_cell.budget.held
