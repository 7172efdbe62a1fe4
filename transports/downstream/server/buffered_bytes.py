"""The bytes of messages that are being read or wait to be written: one budget of a cell, shared among addresses. Pure."""

from __future__ import annotations

from typing import Final

from mcp_gateway.config.settings import GatewaySettings
from mcp_gateway.transports.ports.shared_budget import SharedBudget
from mcp_gateway.transports.protocol.mcp.refusals import Refused

IN: Final = "in"
"""Of messages that clients are sending."""
OUT: Final = "out"
"""Of messages that clients have not read yet."""


class BufferedBytes:
    """How many bytes this cell holds for its clients: its part of `max_buffered_bytes`, and never too few for one whole message.

    held: {direction: bytes}, IN and OUT.
    """

    def __init__(self, gateway: GatewaySettings) -> None:
        limit = max(-(-gateway.max_buffered_bytes // gateway.cell_count), gateway.max_message_bytes)
        self.budget = SharedBudget(limit, max(gateway.max_share_per_address, gateway.max_message_bytes / limit))
        self.held = {IN: 0, OUT: 0}

    def of(self, address: str, direction: str) -> HeldBytes:
        """What one connection or request of this address holds; nothing yet."""
        return HeldBytes(self, address, direction)


class HeldBytes:
    """What one connection or request holds of the budget. `byte_count` goes back to 0 however it ends."""

    __slots__ = ("_address", "_all", "_direction", "byte_count")

    def __init__(self, all_bytes: BufferedBytes, address: str, direction: str) -> None:
        self._all = all_bytes
        self._address = address
        self._direction = direction
        self.byte_count = 0

    def hold(self, byte_count: int) -> bool:
        """Hold exactly so many from now on; False, and nothing has changed, where that would be too many more."""
        more = byte_count - self.byte_count
        if more > 0:
            if not self._all.budget.take(self._address, more):
                return False
        elif more < 0:
            self._all.budget.give_back(self._address, -more)
        self._all.held[self._direction] += more
        self.byte_count = byte_count
        return True

    def refusal(self) -> Refused:
        """What the client reads that has come to the bound: whose it is."""
        budget = self._all.budget
        whose, most = "all clients", budget.limit
        if budget.held_by(self._address) * budget.limit >= budget.held * budget.largest_share:
            whose, most = "the clients of one address", budget.largest_share
        return Refused("too_many_connections", f"messages of {whose} may take {most} bytes here while they are on their way")

    def release(self) -> None:
        """Hold none any more."""
        if self.byte_count:
            self.hold(0)
