"""How heavy a message is on its way between processes."""

from __future__ import annotations

from typing import Final

LIGHT_BYTES: Final = 300
"""What a message weighs that does not say so itself; ours."""


def weight_bytes(message: object) -> int:
    """About how many bytes a message takes on its way: a message that may be large has an attribute `weight_bytes`."""
    weight: int = getattr(message, "weight_bytes", LIGHT_BYTES)
    return weight
