"""The audit trail as a chain of lines: each has the hash of the one before it, so that none can be changed, left out or put in
without breaking the chain. Pure.

What is cut off at the end breaks nothing: who must be sure of that keeps the head of the chain elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

FIRST: Final = "0" * 64
"""What stands for the hash of the line before the first one."""

LONGEST_LINE_BYTES: Final = 65_536

_decode = msgspec.json.Decoder(dict[str, Any]).decode


@attrs.frozen
class ChainEnd:
    """Where a chain goes on. number: of the last entry, 0 before the first. head: the hash of its line."""

    number: int = 0
    head: str = FIRST


def chained(end: ChainEnd, fields: Mapping[str, Any]) -> tuple[bytes, ChainEnd]:
    """(the line of the next entry, with its newline, the end after it).

    Raises: TypeError, ValueError or RecursionError for what JSON has no form for: half of a surrogate pair, say.
    """
    number = end.number + 1
    line = msgspec.json.encode({"number": number, **fields, "previous": end.head})
    return line + b"\n", ChainEnd(number, head_of(line))


def head_of(line: bytes) -> str:
    """line: without its newline."""
    return hashlib.sha256(line).hexdigest()


def end_at(line: bytes) -> ChainEnd:
    """The end of a chain whose last line this is; one that is no entry of ours has number 0, and breaks the chain for good."""
    try:
        number = _decode(line).get("number")
    except (msgspec.DecodeError, RecursionError):
        number = None
    return ChainEnd(number if isinstance(number, int) else 0, head_of(line))


class ChainCheck:
    """Goes through the lines of a trail. first_number: of the entry that it begins with, 0 where there was none."""

    def __init__(self) -> None:
        self.first_number = 0
        self.end = ChainEnd()

    def take(self, line: bytes) -> str | None:
        """What is wrong with the next line, without its newline; None where it goes on as it should.

        A trail may begin anywhere: retention has dropped what came before.
        """
        try:
            entry = _decode(line)
        except (msgspec.DecodeError, RecursionError):
            return "is no entry"
        number, previous = entry.get("number"), entry.get("previous")
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            return "has no number"
        if self.first_number:
            if number != self.end.number + 1:
                return f"is entry {number}, where {self.end.number + 1} was to come"
            if previous != self.end.head:
                return f"entry {number} does not follow the line before it: one of the two was changed"
        elif number == 1 and previous != FIRST:
            return "is the first entry and names one before it"
        self.first_number = self.first_number or number
        self.end = ChainEnd(number, head_of(line))
        return None
