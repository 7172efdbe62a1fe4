"""Which keys a replica takes again while it is new, or has just returned: more and more of them. Pure."""

from __future__ import annotations

from typing import Final

from .hash_ring import position_of

_KEY_SPACE: Final = 2.0**64
_FIRST_SHARE: Final = 0.1
"""Of its keys, at once: what it takes to find out that it is well. Source: Envoy manual, slow start, `min_weight_percent`."""


def takes(key: str, returned_at_s: float, window_s: float, now_s: float) -> bool:
    """Whether a replica that returned then takes this key of its own now.

    The share grows evenly from a tenth to all within the window; a key that it has taken it keeps.
    Source: Envoy manual, "Slow start mode", with an aggression of 1.
    """
    elapsed = (now_s - returned_at_s) / window_s
    if elapsed >= 1.0:
        return True
    return position_of(f"{key}\0slow start") / _KEY_SPACE < max(_FIRST_SHARE, elapsed)
