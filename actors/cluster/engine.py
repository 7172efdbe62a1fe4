"""What a cluster asks of the engine beneath it: messages, keys with compare-and-set, one log. Pure: the contract alone.

In the manner of Phoenix.PubSub's adapters: narrow, so that an engine can be replaced, and one suite of tests
(`tests/actors/cluster/test_engine.py`) that every adapter passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

import attrs

MAX_PAYLOAD_BYTES: Final = 500_000
"""Of one message, one value, one entry. NATS takes 1 MB by default, headers included, and warns of more than half of it."""

LOG_PAGE: Final = 256
"""Entries that one read of the log gives at most."""


class EngineAway(Exception):
    """The engine cannot be reached, has no quorum, or has not answered in time: whether anything was done is not known."""


class NoResponders(Exception):
    """Nobody serves this subject: the request has reached nobody."""


class WrongRevision(Exception):
    """The key has another revision than was expected, or is there where it should not be: nothing was written."""


@attrs.frozen
class Entry:
    """A key as it is, or as it became. revision: rises with every change of any key; value: None where the key is gone."""

    key: str
    revision: int
    value: bytes | None = attrs.field(repr=False)


@attrs.frozen
class LogEntry:
    """One entry of the log. sequence: its place, rising by one. source, number: what it was appended as."""

    sequence: int
    source: str
    number: int
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class LogPage:
    """What one read of the log gave. entries: in order, without holes, LOG_PAGE at most.

    first_sequence: of the oldest entry that is kept; last_sequence + 1 where there is none.
    last_sequence:  of the newest entry; less than a reader has seen where the engine has lost its data.
    """

    entries: tuple[LogEntry, ...]
    first_sequence: int
    last_sequence: int


class Keys(Protocol):
    """What all members read, and change by compare-and-set. Every method that waits raises EngineAway."""

    async def get(self, key: str) -> Entry | None:
        """The key as it is now, None where it is not there."""

    async def create(self, key: str, value: bytes, ttl_s: int | None = None) -> int:
        """Make a key that is not there; its revision. ttl_s: after so long without an update it is gone; whole seconds.

        Raises: WrongRevision where it is there.
        """

    async def update(self, key: str, value: bytes, revision: int, ttl_s: int | None = None, is_news: bool = True) -> int:
        """Replace the key's value where it has this revision still; its new revision.

        ttl_s:   counts from now.
        is_news: where it only lives longer, False: those who watch need not be told of it at once.

        Raises: WrongRevision.
        """

    async def delete(self, key: str, revision: int) -> None:
        """Take the key away where it has this revision still. Raises: WrongRevision."""

    def watch(self, prefix: str) -> AsyncIterator[tuple[Entry, ...]]:
        """First all keys below the prefix as they are (one group, which may be empty), then changes as they come, in their order.

        Of several changes of one key in short time only the last may be told, and a second later that a key has lived its time,
        or lives longer. A watch outlives the engine's absence.
        """


class Engine(Keys, Protocol):
    """One member's connection. Runs on the loop that made it. Every method that waits raises EngineAway.

    Names of subjects, keys and sources are segments of A-Z a-z 0-9 _ and - joined by ".".

    is_connected: whether the engine is there now, as far as is known.
    """

    @property
    def is_connected(self) -> bool: ...

    # ---- messages

    async def request(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """What whoever serves the subject answers.

        Raises: NoResponders, at once; EngineAway also where the answer has not come in time.
        """

    async def serve(self, subject: str, answer: Callable[[bytes], Awaitable[bytes]]) -> Callable[[], Awaitable[None]]:
        """Answer requests of this subject, any number at a time, until what is returned is called.

        An error in `answer` is logged, and nobody is answered.
        """

    async def publish(self, subject: str, payload: bytes) -> None:
        """Let those who subscribe now have it, at most once, the publisher too."""

    async def subscribe(self, subject: str, take: Callable[[bytes], None]) -> Callable[[], Awaitable[None]]:
        """Take what is published under the subject, until what is returned is called."""

    # ---- the log

    async def append(self, source: str, number: int, data: bytes) -> None:
        """Put an entry at the end of the log; it is kept safely when this returns.

        number: of the source, rising. Where the source has appended this number or a higher one already, nothing is appended, so
                that whoever got EngineAway can simply say it again.
        """

    async def read_log(self, after: int) -> LogPage:
        """The entries that follow this sequence, or the oldest that are kept."""

    async def log_news(self, after: int, wait_s: float) -> None:
        """Return when the log may have more than this sequence, or when the time is over. Raises nothing."""

    async def close(self) -> None:
        """Let go of the connection."""
