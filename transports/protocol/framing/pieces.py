"""What is written whole and may be megabytes: in pieces, which nobody copies to stand together. Pure."""

from __future__ import annotations

from typing import TypeAlias

Pieces: TypeAlias = bytes | tuple[bytes, ...]
"""One piece, as a rule; or several, to be written one behind the other."""


def joined(pieces: Pieces) -> bytes:
    return pieces if isinstance(pieces, bytes) else b"".join(pieces)


def size_bytes(pieces: Pieces) -> int:
    return len(pieces) if isinstance(pieces, bytes) else sum(map(len, pieces))
