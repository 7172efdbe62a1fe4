"""Tickets: sealed, and nothing in them of whom they are for."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.tickets import Ticket, read_ticket, sealed_ticket

SEAL = Seal(b"a secret of the node")
TICKET = Ticket("cell/1", "key", 1_700_000_000_000)


def test_any_cell_reads_whom_to_ask() -> None:
    assert read_ticket(Seal(b"a secret of the node"), sealed_ticket(SEAL, TICKET)) == TICKET


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "abc",
        sealed_ticket(SEAL, TICKET) + "A",
        sealed_ticket(Seal(b"another secret of 16"), TICKET),
        SEAL.seal("session", msgspec.msgpack.encode(TICKET)),
        SEAL.seal("ticket", b"\xc1"),
        SEAL.seal("ticket", msgspec.msgpack.encode(["cell/0", "key"])),
    ],
    ids=["empty", "no seal", "altered", "other key", "other kind", "no msgpack", "too few fields"],
)
def test_what_this_gateway_has_not_sealed_is_no_ticket(shown: str) -> None:
    assert read_ticket(SEAL, shown) is None


@given(st.text())
def test_any_text_is_read(shown: str) -> None:
    assert read_ticket(SEAL, shown) is None
