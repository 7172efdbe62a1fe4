"""What an attacker or a peer writes to a port of the actor system."""

from __future__ import annotations

from typing import Any


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def framed(packet: bytes) -> bytes:
    return b"%d>%b" % (len(packet), packet)
