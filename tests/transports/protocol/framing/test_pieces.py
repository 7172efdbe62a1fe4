"""Pieces: the same bytes, and the same count of them, however they are cut."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.protocol.framing.pieces import Pieces, joined, size_bytes


@pytest.mark.parametrize("pieces", [b"abc", (b"abc",), (b"a", b"", b"bc"), (b"a", b"b", b"c")])
def test_however_a_body_is_cut_it_is_the_same(pieces: Pieces) -> None:
    assert (joined(pieces), size_bytes(pieces)) == (b"abc", 3)


def test_nothing_is_empty() -> None:
    assert (joined(()), size_bytes(()), joined(b""), size_bytes(b"")) == (b"", 0, b"", 0)


def test_one_piece_is_not_copied() -> None:
    assert joined(piece := b"x" * 100) is piece
