"""In which form records of the engine are written, where nodes of two versions share them for a while. Pure.

A record is a map, and fields that a node does not know say nothing to it: with them a version may say more. One that changes what
the known fields mean writes a higher format: nodes of before leave such a record alone, and take nothing for gone, free or unset
because they cannot read it.
"""

from __future__ import annotations

from typing import Final

import msgspec

FORMAT: Final = 1
"""That this version writes, and the highest that it reads."""


class NewerFormat(Exception):
    """The record was written by a newer version of the gateway, in a form that this one does not know."""


class _Formatted(msgspec.Struct, frozen=True):
    format: int = FORMAT


_decode = msgspec.msgpack.Decoder(_Formatted).decode


def check_format(record: bytes) -> None:
    """Raises: NewerFormat; msgspec.DecodeError for what is no record."""
    if _decode(record).format > FORMAT:
        raise NewerFormat("a newer version of the gateway has written it")
