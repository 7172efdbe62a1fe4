"""Who owns a thing: each decision, and any number of nodes that crash, stop, are cut off and come back at any moment."""

from __future__ import annotations

import attrs
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcp_gateway.actors.cluster.membership import PRESENCE_TTL_S, OwnLease, Presence, Step, encoded, read_presence
from mcp_gateway.actors.cluster.ownership import (
    Create,
    Decision,
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
from mcp_gateway.actors.cluster.record_format import FORMAT, NewerFormat
from mcp_gateway.actors.messages.cluster import Ownership

THING = "files/stdio:files#0"
KEY = owner_key(THING)
OWN = Standing("a", 5)


def record(node: str = "b", term: int = 7) -> OwnerRecord:
    return OwnerRecord(THING, node, term, "claim")


def presence(node: str, term: int, epoch: int = 0) -> Presence:
    return Presence(node=node, epoch=epoch or term, incarnation=f"{node}-1", term=term)


@pytest.mark.parametrize(
    ("found", "revision", "owner", "own", "decision"),
    [
        (None, 0, None, OWN, Create()),
        (None, 9, None, OWN, TakeOver(9, is_own=False)),  # something that is no record
        (record("a", 5), 9, presence("a", 5), OWN, Held(9)),
        (record("a", 4), 9, presence("a", 5), OWN, TakeOver(9, is_own=True)),
        (record(), 9, presence("b", 7), OWN, HeldElsewhere("b", 9)),
        (record(), 9, presence("b", 7, epoch=11), OWN, HeldElsewhere("b", 9)),  # its member has crashed, the node goes on
        (record(), 9, presence("b", 11), OWN, TakeOver(9, is_own=False)),  # another start of the node, or the same one fenced
        (record(), 9, None, OWN, TakeOver(9, is_own=False)),
        (None, 0, None, Standing("a", 0), NoMember()),
        (record("a", 0), 9, None, Standing("a", 0), NoMember()),
    ],
)
def test_what_a_node_does_that_wants_a_thing(
    found: OwnerRecord | None, revision: int, owner: Presence | None, own: Standing, decision: Decision
) -> None:
    assert decide(found, revision, owner, own) == decision


def test_a_record_is_read_as_it_was_written_and_only_under_its_own_key() -> None:
    assert read_record(KEY, encoded_record(record())) == record()
    assert read_record(owner_key("other"), encoded_record(record())) is None
    assert read_record(KEY, b"rubbish") is None
    assert read_record(KEY, None) is None


def test_of_a_record_of_another_version_more_fields_say_nothing_and_a_newer_form_is_left_alone() -> None:
    fields = msgspec.to_builtins(record())
    assert read_record(KEY, msgspec.msgpack.encode({**fields, "a field of tomorrow": 1})) == record()
    newer = msgspec.msgpack.encode({"format": FORMAT + 1, "thing": THING})
    with pytest.raises(NewerFormat):
        read_record(KEY, newer)
    records = OwnerRecords()
    records.changed([(KEY, 8, encoded_record(record()))])
    records.changed([(KEY, 9, newer)])
    assert records.owners([("a", 5), ("b", 7)]) == {}


@pytest.mark.parametrize(
    ("record", "unread", "is_left_alone"),
    [
        (None, {"b"}, True),
        (None, set(), False),
        (OwnerRecord("thing", "b", 1, "x"), {"b", "c"}, True),
        (OwnerRecord("thing", "b", 1, "x"), {"c"}, False),
    ],
)
def test_what_a_node_may_own_that_cannot_be_read_is_left_alone(
    record: OwnerRecord | None, unread: set[str], *, is_left_alone: bool
) -> None:
    assert may_be_owned(record, unread) == is_left_alone


def test_what_is_older_than_what_is_known_says_nothing() -> None:
    records = OwnerRecords()
    assert records.changed([(KEY, 9, encoded_record(record("a", 5)))])
    assert not records.changed([(KEY, 8, encoded_record(record()))])
    assert records.owners([("a", 5), ("b", 7)]) == {THING: Ownership("a", 9)}
    assert list(records.of("a", 5)) == [(record("a", 5), 9)]
    assert records.changed([(KEY, 10, None)])
    assert records.owners([("a", 5)]) == {}


def test_an_engine_that_has_lost_its_data_begins_again() -> None:
    records = OwnerRecords()
    records.changed([(KEY, 100, encoded_record(record()))])
    assert records.changed([(KEY, 0, None)])
    assert records.changed([(KEY, 3, encoded_record(record("a", 2)))])
    assert records.owners([("a", 2)]) == {THING: Ownership("a", 3)}


def test_an_owner_whose_node_is_not_there_is_none() -> None:
    records = OwnerRecords()
    records.changed([(KEY, 9, encoded_record(record("a", 5)))])
    assert records.owners([("a", 6), ("b", 7)]) == {}


# ---- any number of nodes, at any moment


class Engine:
    """Keys with compare-and-set and a time to live, in virtual time."""

    def __init__(self) -> None:
        self.revision = 0
        self.now_s = 0.0
        self.keys: dict[str, tuple[int, bytes, float]] = {}  # {key: (revision, value, when it ends)}

    def get(self, key: str) -> tuple[int, bytes] | None:
        found = self.keys.get(key)
        return None if found is None or found[2] <= self.now_s else found[:2]

    def put(self, key: str, value: bytes, expected: int, ttl_s: float = float("inf")) -> int:
        """The new revision, 0 where the key has another than was expected."""
        found = self.get(key)
        if (0 if found is None else found[0]) != expected:
            return 0
        self.revision += 1
        self.keys[key] = (self.revision, value, self.now_s + ttl_s)
        return self.revision


@attrs.define(eq=False)
class Node:
    """claim: what it has decided and not carried out yet. is_stopped: it does nothing, and does not know."""

    name: str
    incarnation: int = 1
    term: int = 0
    lease: OwnLease = attrs.field(factory=OwnLease)
    owners: dict[str, Ownership] = attrs.field(factory=dict)
    found: tuple[int, OwnerRecord | None] | None = None
    claim: tuple[Decision, Standing] | None = None
    is_stopped: bool = False
    is_cut_off: bool = False


class Nodes(RuleBasedStateMachine):
    """Each step of each node may come at any time: between a read and the write that follows from it, anything can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine()
        self.nodes = [Node(name) for name in "ab"]
        self.tokens: list[int] = []
        self.number = 0
        for index in range(len(self.nodes)):
            self.renew_or_join(index, 0.0)

    node = st.integers(0, 1)

    def awake(self, index: int) -> Node | None:
        """The node as it is when it does something: it looks at its clock first."""
        node = self.nodes[index]
        if node.is_stopped:
            return None
        if node.lease.next_step(self.engine.now_s) is Step.FENCE:
            node.lease.fenced()
            node.owners.clear()
        return node

    def said(self, node: Node, **changes: object) -> bytes:
        own = Presence(node=node.name, epoch=node.lease.epoch, incarnation=f"{node.name}{node.incarnation}", term=node.term)
        return encoded(msgspec.structs.replace(own, **changes))  # type: ignore[arg-type]

    @rule(index=node, late_s=st.sampled_from([0.0, 0.0, 1.5]))
    def renew_or_join(self, index: int, late_s: float) -> None:
        """late_s: between the sending and the writing."""
        node = self.awake(index)
        if node is None or node.is_cut_off:
            return
        sent_s = self.engine.now_s
        self.engine.now_s += late_s
        key = f"node.{node.name}"
        found = self.engine.get(key)
        there = None if found is None else read_presence(found[1], found[0])
        if node.lease.is_member:
            if there is None or found is None or (there.term, there.epoch) != (node.term, node.lease.epoch):
                node.lease.fenced()
                node.owners.clear()
                return
            node.lease.renewed(self.engine.put(key, self.said(node), found[0], PRESENCE_TTL_S), sent_s)
        elif there is None or found is None:
            node.term = self.engine.put(key, self.said(node, epoch=0, term=0), 0, PRESENCE_TTL_S)
            node.lease.joined(node.term, sent_s)
        elif there.incarnation == f"{node.name}{node.incarnation}":
            node.term = there.term
            epoch = self.engine.put(key, self.said(node, epoch=0, term=there.term), found[0], PRESENCE_TTL_S)
            node.lease.joined(epoch, sent_s)

    @rule(index=node)
    def read_the_record(self, index: int) -> None:
        node = self.awake(index)
        if node is None or node.is_cut_off:
            return
        found = self.engine.get(KEY)
        node.found = (0, None) if found is None else (found[0], read_record(KEY, found[1]))

    @rule(index=node)
    def decide_from_the_presence(self, index: int) -> None:
        node = self.awake(index)
        if node is None or node.is_cut_off or node.found is None:
            return
        (revision, read), node.found = node.found, None
        owner = None
        if read is not None and (there := self.engine.get(f"node.{read.node}")) is not None:
            owner = read_presence(there[1], there[0])
        own = Standing(node.name, node.term if node.lease.left_s(self.engine.now_s) else 0)
        node.claim = (decide(read, revision, owner, own), own)

    @rule(index=node)
    def carry_out(self, index: int) -> None:
        node = self.awake(index)
        if node is None or node.is_cut_off or node.claim is None:
            return
        (decision, own), node.claim = node.claim, None
        token = 0
        if isinstance(decision, Create | TakeOver):
            self.number += 1
            claimed = OwnerRecord(THING, own.node, own.term, f"{self.number}")
            expected = decision.revision if isinstance(decision, TakeOver) else 0
            token = self.engine.put(KEY, encoded_record(claimed), expected)
            if token:
                assert all(token > before for before in self.tokens)
                self.tokens.append(token)
        elif isinstance(decision, Held):
            token = decision.token
        # As of the records that it knows: those of a term that is not its own any more are not its own.
        if token and node.lease.is_member and node.term == own.term:
            node.owners = {THING: Ownership(node.name, token)}

    @rule(index=node)
    def claim_without_a_break(self, index: int) -> None:
        self.read_the_record(index)
        self.decide_from_the_presence(index)
        self.carry_out(index)

    @rule(index=node)
    def crash_the_member(self, index: int) -> None:
        """The node goes on with what it owns, until the end of the lease that its cells know; a new member joins by itself."""
        node = self.awake(index)
        if node is not None and node.lease.is_member:
            node.found = node.claim = None

    @rule(index=node)
    def start_the_node_anew(self, index: int) -> None:
        old = self.nodes[index]
        self.nodes[index] = Node(old.name, incarnation=old.incarnation + 1)

    @rule(index=node)
    def stop_or_continue(self, index: int) -> None:
        self.nodes[index].is_stopped ^= True

    @rule(index=node)
    def cut_off_or_join(self, index: int) -> None:
        self.nodes[index].is_cut_off ^= True

    @rule(seconds=st.sampled_from([0.5, 7.9, 10.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.engine.now_s += seconds

    @precondition(lambda self: self.nodes)
    @invariant()
    def no_two_nodes_may_use_the_thing(self) -> None:
        now_s = self.engine.now_s
        users = [
            node.name
            for node in self.nodes
            if THING in node.owners and node.lease.until_s > now_s  # one that is stopped may do so as soon as it goes on
        ]
        assert len(users) <= 1, users


Nodes.TestCase.settings = settings(max_examples=400, stateful_step_count=25, deadline=None)
TestAnyNumberOfNodes = Nodes.TestCase
