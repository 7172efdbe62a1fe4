"""What stdio, WebSocket and HTTP+SSE have in common: whole messages each way over one connection that opens and ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

import attrs

_FOLDERS: Final = re.compile(r"""(?<![\w:/.~])(?:~|\.{1,2})?/(?:[^\s/'"]+/)*(?=[^\s/'"])""")


class PipeClosed(Exception):
    """The connection has ended, or could not be opened; the text says why, for the operator to read."""

    @property
    def told(self) -> str:
        """The same for clients: where things are on this machine is no business of theirs."""
        return _FOLDERS.sub("", str(self))


class NeverOpens(PipeClosed):
    """It could not be opened, and cannot be until somebody has mended that: there is no such program, say."""


class SendFailed(Exception):
    """One message did not get through, or nobody knows whether it did; the connection goes on."""


@attrs.frozen
class TooLarge:
    """A message beyond the limit, of which only the ends were kept: they may show whose answer it was."""

    head: bytes = attrs.field(repr=False)
    tail: bytes = attrs.field(repr=False)


class MessagePipe(Protocol):
    """One connection to one server, used by one task that receives and any number that send."""

    async def open(self) -> None:
        """Connect. Called once.

        Raises: PipeClosed.
        """

    async def send(self, message: bytes, on_begin: Callable[[], None]) -> None:
        """Hand over one message; waits while the server does not take what was sent before.

        on_begin: called before the first byte leaves; until then the server cannot have seen the message.

        Raises: PipeClosed; SendFailed.
        """

    async def receive(self) -> bytes | TooLarge:
        """The next message.

        Raises: PipeClosed once the connection has ended and all that came before was received.
        """

    async def close(self) -> None:
        """End the connection and what it runs, within a bound. May be called at any time, and again."""
