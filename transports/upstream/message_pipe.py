"""What stdio, WebSocket and HTTP+SSE have in common: whole messages each way over one connection that opens and ends."""

from __future__ import annotations

from typing import Protocol

import attrs


class PipeClosed(Exception):
    """The connection has ended, or could not be opened; the text says why, for people to read."""


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

    async def send(self, message: bytes) -> None:
        """Hand over one message without line breaks; waits while the server does not take what was sent before.

        Cancelled while it waits, nothing of the message is sent.

        Raises: PipeClosed before anything of the message was sent.
        """

    async def receive(self) -> bytes | TooLarge:
        """The next message.

        Raises: PipeClosed once the connection has ended and all that came before was received.
        """

    async def close(self) -> None:
        """End the connection and what it runs, within a bound. May be called at any time, and again."""
