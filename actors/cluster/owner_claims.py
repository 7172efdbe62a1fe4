"""This node's part in who owns what, on an event loop: claims things by compare-and-set, watches all owners, lets go of its own.

What to do is decided by `ownership`; what is done to records is told to the log (`owner_history`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Collection
from typing import Any, Final, Protocol

from mcp_gateway.actors.messages.cluster import Ownership
from mcp_gateway.transports.ports.lease_clock import lease_clock_s
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.owner_history import tell_of_owner
from mcp_gateway.transports.telemetry import metrics

from .engine import EngineAway, Keys, WrongRevision
from .membership import Presence, presence_key, read_presence
from .ownership import (
    OWNER_PREFIX,
    Create,
    Held,
    HeldElsewhere,
    NoMember,
    OwnerRecord,
    OwnerRecords,
    Standing,
    TakeOver,
    decide,
    encoded_record,
    may_be_owned,
    owner_key,
    read_record,
)
from .record_format import NewerFormat

TAKE_OVER_AFTER_S: Final = 1.0
"""After an owner was found to be gone: what it ran has been told to end before its presence did, and takes a while for it."""

MOST_THINGS: Final = 1_000
"""That a cluster may have owners for."""

_AGAIN_S: Final = 0.5

_logger = logging.getLogger(__name__)


class ClaimSite(Protocol):
    """The membership around it.

    may_create_s: on the clock of leases; before it, records that are not there may have been lost.
    """

    @property
    def standing(self) -> Standing: ...

    @property
    def may_create_s(self) -> float: ...

    @property
    def unread(self) -> Collection[str]:
        """Nodes that are there, which is all that this one can read of them."""

    def owners_changed(self) -> None:
        """Somebody owns something else now."""


class OwnerClaims:
    """Claims, and knows, owners. Runs on the loop of its engine, whose keys it has."""

    def __init__(self, keys: Keys, site: ClaimSite) -> None:
        self._keys = keys
        self._site = site
        self._records = OwnerRecords()
        self._claiming: set[str] = set()
        self._tasks = HeldTasks()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async for entries in self._keys.watch(OWNER_PREFIX):
                self._know(*((entry.key, entry.revision, entry.value) for entry in entries))
        finally:
            self._tasks.cancel()

    def owners(self, presences: list[Presence]) -> dict[str, Ownership]:
        """{thing: owner}. presences: of all members, this one too."""
        return self._records.owners((presence.node, presence.term) for presence in presences)

    def want(self, thing: str) -> None:
        """Own it, unless another node does. Who owns it then is told by `owners_changed`."""
        if thing not in self._claiming and len(self._claiming) < MOST_THINGS:
            self._claiming.add(thing)
            self._tasks.start(self._claim(thing))

    async def release(self) -> None:
        """Let go of all that this node owns, whose use has ended, so that others need not wait for the end of its presence."""
        own = self._site.standing
        for record, revision in list(self._records.of(own.node, own.term)):
            key = owner_key(record.thing)
            with contextlib.suppress(EngineAway, WrongRevision):
                await self._write("released", record, self._keys.delete(key, revision), revision)
                self._know((key, revision + 1, None))

    async def _claim(self, thing: str) -> None:
        try:
            while not await self._try_to_own(thing):
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._claiming.discard(thing)

    async def _try_to_own(self, thing: str) -> bool:
        """Whether who owns it is known now, or need not be."""
        own = self._site.standing
        key = owner_key(thing)
        try:
            # The record first: its owner had joined before it was written, so a presence that is not there then has ended.
            began_s = lease_clock_s()
            found = await self._keys.get(key)
            revision = 0 if found is None else found.revision
            record = None if found is None else read_record(key, found.value)
            tell_of_owner("read", thing, own.node, began_s, claim="" if record is None else record.claim)
            owner = None
            if record is not None and (there := await self._keys.get(presence_key(record.node))) is not None and there.value:
                owner = read_presence(there.value, there.revision)
            decision = decide(record, revision, owner, own)
            if isinstance(decision, NoMember):
                return True
            if isinstance(decision, Held | HeldElsewhere):
                assert found is not None
                self._know((key, revision, found.value))
                return True
            if isinstance(decision, Create) and lease_clock_s() < self._site.may_create_s:
                return False
            if isinstance(decision, TakeOver) and not decision.is_own:
                await asyncio.sleep(TAKE_OVER_AFTER_S)
                if may_be_owned(record, self._site.unread):
                    _logger.warning("%s is left alone: it may be one's of which nothing can be read here", thing)
                    return True
            claimed = OwnerRecord(thing, own.node, own.term, uuid.uuid4().hex[:12])
            await self._take(key, claimed, record, decision)
        except EngineAway:
            return False
        except WrongRevision:  # another node was faster, and is known the next time
            return False
        except NewerFormat as error:
            _logger.warning("%s is left alone: who owns it cannot be read, %s", thing, error)
        return True

    async def _take(self, key: str, claimed: OwnerRecord, before: OwnerRecord | None, decision: Create | TakeOver) -> None:
        """Raises: EngineAway, WrongRevision."""
        value = encoded_record(claimed)
        expected = decision.revision if isinstance(decision, TakeOver) else 0
        writing = self._keys.update(key, value, expected) if expected else self._keys.create(key, value)
        revision = await self._write("acquired", claimed, writing, expected, before="" if before is None else before.claim)
        assert revision is not None
        _logger.info("node %s owns %s, token %d", claimed.node, claimed.thing, revision)
        self._know((key, revision, value))

    async def _write(
        self, event: str, record: OwnerRecord, writing: Awaitable[int | None], expected: int, *, before: str | None = None
    ) -> int | None:
        """Carry out a write, and tell how it has ended; the revision that it has made, if any.

        before: the claim that it replaces; its own where it lets go.

        Raises: EngineAway, WrongRevision.
        """
        began_s = lease_clock_s()
        told: dict[str, Any] = {"expected": expected, "claim": record.claim, "before": record.claim if before is None else before}
        tell_of_owner("trying", record.thing, record.node, began_s, tried=event, **told)  # this process may end before it knows
        try:
            revision = await writing
        except WrongRevision:
            tell_of_owner("refused", record.thing, record.node, began_s, tried=event, **told)
            metrics.cluster_ownership_total.labels("refused").inc()
            raise
        except BaseException:  # also a cancellation: whether it was done is not known
            metrics.cluster_ownership_total.labels("unknown").inc()
            raise
        tell_of_owner(event, record.thing, record.node, began_s, tried=event, fence=revision or expected, **told)
        metrics.cluster_ownership_total.labels(event).inc()
        return revision

    def _know(self, *entries: tuple[str, int, bytes | None]) -> None:
        if self._records.changed(entries):
            self._site.owners_changed()
