"""Who is a member: what a node does when, against the engine's own view of its key, in virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mcp_gateway.actors.cluster.membership import (
    FENCE_S,
    PRESENCE_TTL_S,
    RENEW_S,
    Nodes,
    OwnLease,
    Presence,
    Step,
    encoded,
    presence_key,
    read_presence,
    remote_cells,
)
from mcp_gateway.actors.cluster.record_format import FORMAT, NewerFormat


def presence(node: str, epoch: int = 0, **fields: Any) -> Presence:
    """As a node says it, of the term that began with this epoch."""
    return Presence(node=node, epoch=epoch, incarnation=f"{node}-1", term=epoch, **fields)


def told(node: str, revision: int, epoch: int = 0, **fields: Any) -> tuple[str, int, bytes | None]:
    return presence_key(node), revision, encoded(presence(node, epoch, **fields))


# ---- this node's own lease


def test_a_node_joins_then_renews_every_three_seconds() -> None:
    lease = OwnLease()
    assert lease.next_step(0.0) is Step.JOIN
    lease.tried(0.0)
    lease.joined(7, 0.0)
    assert lease.is_member
    assert lease.next_step(RENEW_S - 0.1) is Step.WAIT
    assert lease.due_s(RENEW_S - 0.1) == RENEW_S
    assert lease.next_step(RENEW_S) is Step.RENEW


def test_a_node_that_cannot_renew_fences_itself_while_its_key_is_there_still() -> None:
    lease = OwnLease()
    lease.tried(0.0)
    lease.joined(7, 0.0)
    now_s = 0.0
    while lease.next_step(now_s) is not Step.FENCE:
        if lease.next_step(now_s) is Step.RENEW:
            lease.tried(now_s)
        now_s += 0.1
        assert now_s < PRESENCE_TTL_S - 1.0
    assert now_s >= FENCE_S
    lease.fenced()
    assert lease.next_step(now_s) is Step.JOIN


def test_a_renewal_counts_from_when_it_was_sent_and_not_at_all_after_the_node_has_fenced_itself() -> None:
    lease = OwnLease()
    lease.tried(0.0)
    lease.joined(7, 0.0)
    lease.renewed(8, 3.0)
    assert lease.next_step(3.0 + FENCE_S - 0.1) is not Step.FENCE
    assert lease.next_step(3.0 + FENCE_S) is Step.FENCE
    lease.fenced()
    lease.renewed(9, 11.0)
    assert not lease.is_member


def test_a_node_with_something_new_to_say_renews_at_once() -> None:
    lease = OwnLease()
    lease.tried(0.0)
    lease.joined(7, 0.0)
    lease.hurry()
    assert lease.next_step(0.1) is Step.RENEW


# ---- the others


def test_a_node_is_there_while_its_key_is_under_the_epoch_of_its_first_revision() -> None:
    nodes = Nodes("a")
    assert nodes.changed([told("b", 5, cells={"cell/0": 2})])
    assert nodes.is_there("b", 5)
    assert not nodes.changed([told("b", 9, epoch=5, cells={"cell/0": 2})])
    assert nodes.is_there("b", 5)
    assert nodes.changed([(presence_key("b"), 12, None)])
    assert not nodes.is_there("b", 5)
    nodes.changed([told("b", 13)])
    assert not nodes.is_there("b", 5)
    assert nodes.is_there("b", 13)


def test_its_own_key_says_nothing_new_to_a_node_and_rubbish_is_no_node() -> None:
    nodes = Nodes("a")
    assert not nodes.changed([told("a", 5), (presence_key("b"), 6, b"rubbish"), (presence_key("c"), 7, encoded(presence("d")))])
    assert nodes.others() == {}
    assert nodes.unread.keys() == {"b", "c"}


def test_cells_of_other_nodes_have_another_incarnation_when_either_node_joins_anew() -> None:
    other = {"b": presence("b", 5, cells={"cell/0": 1, "cell/1": 3})}
    first = remote_cells(other, 2)
    assert first.keys() == {"b/cell/0", "b/cell/1"}
    again = {"b": presence("b", 8, cells={"cell/0": 1, "cell/1": 4})}
    for changed in (remote_cells(other, 3), remote_cells(again, 2)):
        assert all(first[name] != changed[name] for name in first)


# ---- both, and the engine's clock


class Lives(RuleBasedStateMachine):
    """One node against the engine: requests and answers are lost, late or in time, the node is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.lease = OwnLease()
        self.ends_s: float | None = None  # of the key at the engine
        self.revision = 0
        self.under_way: list[tuple[float, bool]] = []  # (when sent, whether it reached the engine)

    @rule(step_s=st.floats(0.01, 4.0))
    def time_passes(self, step_s: float) -> None:
        for _ in range(40):  # the node looks at its clock now and then, as long as it runs
            self.now_s += step_s / 40
            if self.ends_s is not None and self.now_s >= self.ends_s:
                self.ends_s = None
            if self.lease.next_step(self.now_s) is Step.FENCE:
                self.lease.fenced()
                self.under_way.clear()

    @precondition(lambda self: self.lease.next_step(self.now_s) in (Step.JOIN, Step.RENEW))
    @rule(reaches=st.booleans())
    def node_takes_its_step(self, reaches: bool) -> None:
        step = self.lease.next_step(self.now_s)
        self.lease.tried(self.now_s)
        if step is Step.RENEW:
            is_there = self.ends_s is not None
            self.under_way.append((self.now_s, reaches and is_there))
            if reaches and is_there:
                self.ends_s = self.now_s + PRESENCE_TTL_S
        elif reaches and self.ends_s is None:
            self.revision += 1
            self.ends_s = self.now_s + PRESENCE_TTL_S
            self.lease.joined(self.revision, self.now_s)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def an_answer_comes_or_is_lost(self, data: st.DataObject) -> None:
        sent_s, has_reached = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        if has_reached and data.draw(st.booleans()):
            self.revision += 1
            self.lease.renewed(self.revision, sent_s)

    @invariant()
    def a_member_has_its_key(self) -> None:
        if self.lease.is_member:
            assert self.ends_s is not None
            assert self.ends_s > self.now_s


TestLives = Lives.TestCase
TestLives.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_presence_is_read_as_it_was_written() -> None:
    said = presence("b", 4, cells={"cell/0": 1}, cell_count=2, is_draining=True, version="1", url="http://b")
    assert read_presence(encoded(said), 9) == said
    assert read_presence(b"\xff", 9) is None


def test_of_a_presence_of_another_version_more_fields_say_nothing_and_a_newer_form_is_left_alone() -> None:
    fields = msgspec.to_builtins(presence("b", 4))
    assert read_presence(msgspec.msgpack.encode({**fields, "a field of tomorrow": [1]}), 9) == presence("b", 4)
    newer = msgspec.msgpack.encode({"format": FORMAT + 1, "node": "b", "epoch": "in words"})
    with pytest.raises(NewerFormat):
        read_presence(newer, 9)
    nodes = Nodes("a")
    assert not nodes.changed([(presence_key("b"), 5, newer)])
    assert (nodes.others(), nodes.unread.keys()) == ({}, {"b"})
    assert nodes.changed([told("b", 6)])
    assert (list(nodes.others()), nodes.unread) == (["b"], {})
    nodes.changed([(presence_key("b"), 7, newer)])
    assert (nodes.others(), nodes.unread) == ({}, {"b": "a newer version of the gateway has written it"})
    nodes.changed([(presence_key("b"), 8, None)])
    assert nodes.unread == {}
