"""Until when a message must be whole whose first byte is here: a body over HTTP, or a message over WebSocket. Pure."""

from __future__ import annotations

from typing import Final

MESSAGE_TIMEOUT_S: Final = 30.0
_SLOWEST_BYTES_PER_S: Final = 16_000
OVERDUE: Final = f"the message did not arrive within {MESSAGE_TIMEOUT_S:g} s, nor steadily"


def due_s(began_s: float, byte_count: int) -> float:
    """On the clock of `began_s`; later for one that is large and comes steadily. byte_count: of it that are here."""
    return began_s + MESSAGE_TIMEOUT_S + byte_count / _SLOWEST_BYTES_PER_S
