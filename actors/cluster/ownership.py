"""Who owns a thing that the cluster has once, as one node decides it. Pure.

A thing is a name, such as that of a stdio server of which one process runs in the whole cluster. Its owner record is a key of the
engine, changed by compare-and-set only; the key's revision is the fencing token: every owner has a higher one than all before it.
A record holds as long as the presence key of its node is the same one, renewed without a break (its `term`). So ownership costs
no renewal of its own, a member process that crashes keeps what its node owns, and nobody takes over before that key is gone, by
which time the node has fenced itself.

What has its node in its id (a call that waits for its client, a task, a stream) needs no record: nobody else ever takes it over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import attrs
import msgspec

from mcp_gateway.actors.messages.cluster import Ownership

from .membership import Presence
from .record_format import FORMAT, NewerFormat, check_format

OWNER_PREFIX: Final = "owner."


class OwnerRecord(msgspec.Struct, frozen=True):
    """What an owner record holds.

    claim:  random for each attempt to own, by which histories tell them apart.
    format: see `record_format`.
    """

    thing: str
    node: str
    term: int
    claim: str
    format: int = FORMAT


_decode = msgspec.msgpack.Decoder(OwnerRecord).decode


def owner_key(thing: str) -> str:
    """Names of things have characters that keys of the engine must not have."""
    return f"{OWNER_PREFIX}{hashlib.blake2b(thing.encode(), digest_size=16).hexdigest()}"


def encoded_record(record: OwnerRecord) -> bytes:
    return msgspec.msgpack.encode(record)


def read_record(key: str, value: bytes | None) -> OwnerRecord | None:
    """What an owner key holds, None for something else. Raises: NewerFormat."""
    if value is None:
        return None
    try:
        check_format(value)
        record = _decode(value)
    except msgspec.DecodeError:
        return None
    return record if owner_key(record.thing) == key else None


@attrs.frozen
class Standing:
    """This node. term: of its presence key; 0 where it is no member, so that it can own nothing."""

    node: str
    term: int


@attrs.frozen
class Held:
    """This node owns it already."""

    token: int


@attrs.frozen
class HeldElsewhere:
    """Another node owns it, and is there."""

    node: str
    token: int


@attrs.frozen
class Create:
    """Nobody owns it: make its record, where there is still none."""


@attrs.frozen
class TakeOver:
    """Its owner is gone: replace the record, where it still has this revision.

    is_own: it was this node's, in an earlier term, when it fenced itself.
    """

    revision: int
    is_own: bool


@attrs.frozen
class NoMember:
    """This node is cut off: it owns nothing, and must not take anything."""


Decision = Held | HeldElsewhere | Create | TakeOver | NoMember


def decide(record: OwnerRecord | None, revision: int, owner: Presence | None, own: Standing) -> Decision:
    """What this node, which wants a thing, has to do.

    record, revision: as read. owner: the presence of the record's node, read after it; None where there is none.
    """
    if not own.term:
        return NoMember()
    if record is None:
        return Create() if not revision else TakeOver(revision, is_own=False)  # something else is in its place
    if (record.node, record.term) == (own.node, own.term):
        return Held(revision)
    if owner is not None and record.node != own.node and owner.term == record.term:
        return HeldElsewhere(record.node, revision)
    return TakeOver(revision, is_own=record.node == own.node)


def may_be_owned(record: OwnerRecord | None, unread: Collection[str]) -> bool:
    """Whether one of these nodes may own a thing whose owner seems to be gone: nodes that are there, and cannot be read here.

    They have another key, or a newer version. record: None for one that cannot be read either.
    """
    return bool(unread) if record is None else record.node in unread


class OwnerRecords:
    """All owner records as one node knows them, by the watch and by what it has written itself."""

    def __init__(self) -> None:
        self._records: dict[str, tuple[OwnerRecord | None, int]] = {}  # {key: (record, revision)}; None where it is gone

    def changed(self, entries: Iterable[tuple[str, int, bytes | None]]) -> bool:
        """Take (key, revision, value) as they become known; what is older than what is known says nothing.

        revision 0 is that of an engine which has lost its data.
        """
        has_changed = False
        for key, revision, value in entries:
            _, known = self._records.get(key, (None, 0))
            if revision and revision <= known:
                continue
            try:
                record = read_record(key, value)
            except NewerFormat:
                record = None  # who owns it is not known; whoever wants it reads it again
            self._records[key] = (record, revision)
            has_changed = True
        return has_changed

    def owners(self, terms: Iterable[tuple[str, int]]) -> dict[str, Ownership]:
        """{thing: its owner}, of those whose owner is there. terms: (node, term) of all members."""
        there = set(terms)
        return {
            record.thing: Ownership(record.node, revision)
            for record, revision in self._records.values()
            if record is not None and (record.node, record.term) in there
        }

    def of(self, node: str, term: int) -> Iterator[tuple[OwnerRecord, int]]:
        """(record, revision) of what this node owns in this term."""
        for record, revision in self._records.values():
            if record is not None and (record.node, record.term) == (node, term):
                yield record, revision
