"""Members of params that are nearly those which decide what a request is about. Pure.

Some servers, Go's above all, take "Name" for "name", and of both the last one: whoever decides by the one must not pass on the
other.

Source: Go, package encoding/json: "preferring exact matches but also accepting case-insensitive matches".
"""

from __future__ import annotations

from typing import Final

from .jsonrpc import members

_DECIDED_ON: Final = ("name", "uri", "arguments", "ref", "notifications", "resourceSubscriptions", "taskId", "taskIds")
_LIKE: Final = {name.casefold(): name for name in _DECIDED_ON}


def misspelt(params: bytes) -> str | None:
    """What is wrong with how members are written, for the client; None where nothing is. Raises: msgspec.DecodeError."""
    values = members(params)
    inner = [bytes(values[name]) for name in ("ref", "notifications") if name in values]
    levels = [values, *(members(each) for each in inner if each.startswith(b"{"))]
    for shown in (shown for level in levels for shown in level if shown not in _DECIDED_ON):
        if (meant := _LIKE.get(shown.casefold())) is not None:
            return f"{shown[:100]!r} is not how {meant!r} is written"
    return None
