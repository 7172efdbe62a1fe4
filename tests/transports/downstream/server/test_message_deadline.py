"""A message has its time, and one that is large and comes steadily has more."""

from __future__ import annotations

from mcp_gateway.transports.downstream.server.message_deadline import MESSAGE_TIMEOUT_S, due_s


def test_a_message_that_stops_is_due_sooner_than_one_that_goes_on() -> None:
    assert due_s(100.0, 0) == 100 + MESSAGE_TIMEOUT_S
    assert due_s(100.0, 4_000_000) == 100 + MESSAGE_TIMEOUT_S + 250
