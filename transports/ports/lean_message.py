"""The base of messages and values of which there are several for every call. Pure."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class LeanMessage(msgspec.Struct, frozen=True):
    """A Struct, which is made in a quarter of the time of an attrs class; with twenty fields that is three microseconds.

    HIDDEN: fields that `str()` leaves out: they hold what clients and servers say, and messages appear in logs.
    """

    HIDDEN: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.HIDDEN)
        return f"{type(self).__name__}({', '.join(shown)})"
