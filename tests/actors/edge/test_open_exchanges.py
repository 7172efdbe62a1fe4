"""What waits for an answer and who works on it, in any order of events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mcp_gateway.actors.edge.open_exchanges import OpenExchanges
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.sealed.session import SessionState


def exchange(exchange_id: int, *, stream_of: str = "", within: str = "") -> Exchange:
    """The stream of a session, or a request, within a session or without."""
    key = stream_of or within
    return Exchange(
        exchange_id=exchange_id,
        transport="t",
        revision="r",
        endpoint="",
        kind=RequestKind.STREAM if stream_of else RequestKind.REQUEST,
        session=SessionState(key, "", "2025-11-25", "", b"{}", ()) if key else None,
        deadline_s=float("inf"),
    )


def opened(*exchanges: Exchange) -> tuple[OpenExchanges, list[Any]]:
    """Exchanges that are served, and their conversations."""
    ledger, conversations = OpenExchanges(), []
    for each in exchanges:
        ledger.open(each, f"sink {each.exchange_id}")
        conversations.append(SimpleNamespace(exchange=each))
        ledger.serve(conversations[-1])
    ledger.assert_consistent()
    return ledger, conversations


def test_an_exchange_waits_until_it_is_settled_whether_it_is_served_or_not():
    ledger, (conversation,) = opened(exchange(1))
    ledger.open(exchange(2), "sink 2")
    assert (list(ledger.waiting), ledger.unserved()) == ([1, 2], [(exchange(2), "sink 2")])
    assert (ledger.conversation(1), ledger.conversation(2)) == (conversation, None)
    for exchange_id in (1, 2, 2, 99):
        ledger.settle(exchange_id)
    assert (dict(ledger.waiting), ledger.conversations()) == ({}, [])


def test_a_call_has_one_outcome_and_any_number_of_events_before_it():
    ledger, (conversation,) = opened(exchange(1))
    ledger.begin_call(7, 1)
    assert [ledger.of_call(7), ledger.of_call(7), ledger.end_call(7)] == [conversation] * 3
    assert [ledger.of_call(7), ledger.end_call(7), ledger.calls] == [None, None, []]


def test_a_late_outcome_of_an_exchange_that_is_over_meets_nobody():
    ledger, _ = opened(exchange(1))
    ledger.begin_call(7, 1)
    ledger.settle(1)
    assert (ledger.of_call(7), ledger.end_call(7)) == (None, None)
    ledger.assert_consistent()


def test_clients_wait_through_a_new_start_and_what_worked_for_them_is_forgotten():
    ledger, _ = opened(exchange(1), exchange(2, stream_of="a"))
    ledger.begin_call(7, 1)
    ledger.start_over()
    assert [waits[0].exchange_id for waits in ledger.unserved()] == [1, 2]
    assert (ledger.end_call(7), ledger.of_session("a"), ledger.next_sessions(9)) == (None, [], [])


def test_streams_are_found_by_their_session_and_requests_in_it_are_none():
    streams = exchange(1, stream_of="a"), exchange(2, stream_of="a"), exchange(3, stream_of="b")
    ledger, conversations = opened(*streams, exchange(4, within="a"))
    assert ledger.of_session("a") == conversations[:2]
    ledger.settle(1)
    assert ledger.of_session("a") == conversations[1:2]
    ledger.settle(2)
    assert (ledger.of_session("a"), ledger.of_session("b")) == ([], conversations[2:3])


def test_each_session_has_its_turn():
    ledger, _ = opened(*(exchange(number, stream_of=name) for number, name in enumerate("abcde")))
    turns = [[session.key for session in ledger.next_sessions(2)] for _ in range(4)]
    assert turns == [["a", "b"], ["c", "d"], ["e", "a"], ["b", "c"]]
    assert len(ledger.next_sessions(50)) == 5
    ledger.assert_consistent()


class LedgerAgainstModel(RuleBasedStateMachine):
    """The ledger does what a list of exchanges with their parts would do."""

    def __init__(self):
        super().__init__()
        self.ledger = OpenExchanges()
        self.rows: list[Any] = []  # (exchange, conversation or None, ids of calls)
        self.ended: list[int] = []
        self.next_id = 0

    def row(self, index: int, *, served: bool) -> Any:
        rows = [row for row in self.rows if (row.conversation is not None) == served]
        return rows[index % len(rows)] if rows else None

    def streams(self, key: str) -> set[int]:
        served = [row.exchange for row in self.rows if row.conversation is not None and row.exchange.kind is RequestKind.STREAM]
        return {each.exchange_id for each in served if each.session.key == key}

    @rule(how=st.sampled_from([{}, {"within": "a"}, {"stream_of": "a"}, {"stream_of": "b"}]))
    def open(self, how):
        self.next_id += 1
        row = SimpleNamespace(exchange=exchange(self.next_id, **how), conversation=None, calls=[])
        self.rows.append(row)
        self.ledger.open(row.exchange, None)

    @rule(index=st.integers(0, 5))
    def serve(self, index):
        if (row := self.row(index, served=False)) is not None:
            row.conversation = SimpleNamespace(exchange=row.exchange)
            self.ledger.serve(row.conversation)

    @rule(index=st.integers(0, 5))
    def begin_call(self, index):
        if (row := self.row(index, served=True)) is not None:
            self.next_id += 1
            row.calls.append(self.next_id)
            self.ledger.begin_call(self.next_id, row.exchange.exchange_id)

    @rule(index=st.integers(0, 5))
    def end_call(self, index):
        row = self.row(index, served=True)
        if row is not None and row.calls:
            call_id = row.calls.pop()
            assert self.ledger.end_call(call_id) is row.conversation
            self.ended.append(call_id)

    @rule(index=st.integers(0, 5), served=st.booleans())
    def settle(self, index, served):
        if (row := self.row(index, served=served)) is not None:
            for call_id in row.calls:
                self.ledger.end_call(call_id)
            self.ledger.settle(row.exchange.exchange_id)
            self.rows.remove(row)
            self.ended.extend(row.calls)

    @rule()
    def start_over(self):
        self.ledger.start_over()
        for row in self.rows:
            self.ended.extend(row.calls)
            row.conversation, row.calls = None, []

    @rule(count=st.integers(0, 3))
    def give_sessions_their_turn(self, count):
        known = {key for key in ("a", "b") if self.streams(key)}
        keys = [session.key for session in self.ledger.next_sessions(count)]
        assert len(keys) == len(set(keys)) == min(count, len(known))
        assert set(keys) <= known

    @invariant()
    def ledger_agrees_with_the_model(self):
        self.ledger.assert_consistent()
        assert list(self.ledger.waiting) == [row.exchange.exchange_id for row in self.rows]
        assert [waits[0] for waits in self.ledger.unserved()] == [row.exchange for row in self.rows if row.conversation is None]
        assert set(self.ledger.calls) == {call_id for row in self.rows for call_id in row.calls}
        for row in self.rows:
            assert self.ledger.conversation(row.exchange.exchange_id) is row.conversation
            assert all(self.ledger.of_call(call_id) is row.conversation for call_id in row.calls)
        for key in ("a", "b"):
            assert {stream.exchange.exchange_id for stream in self.ledger.of_session(key)} == self.streams(key)
        assert not any(self.ledger.of_call(call_id) for call_id in self.ended)


LedgerAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerAgainstModel = LedgerAgainstModel.TestCase
