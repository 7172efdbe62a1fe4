"""Lanes: one transmit per target, nothing lost in silence."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import attrs

from mcp_gateway.actors.messages.between_cells import (
    CellAsked,
    ExchangeForwarded,
    Forwarded,
    ForwardedAnswer,
    ForwardedEvent,
    SessionChanged,
)
from mcp_gateway.actors.messages.event_log import EventsDistributed, JoinEventLog, PublishEvents, StoredEvent, UnstoredEvent
from mcp_gateway.actors.messages.weight import weight_bytes
from mcp_gateway.actors.runtime.lanes import Batch, Lanes
from mcp_gateway.actors.runtime.packet_seal import MAX_PACKET_BYTES
from mcp_gateway.transports.downstream.http.http_sse import PostedMessage
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.sealed.session import SessionState
from mcp_gateway.transports.protocol.topics.topic_log import Event


class Transport:
    """Records transmits; the test decides how each ends."""

    def __init__(self, **limits: int) -> None:
        self.under_way: list[tuple[str, tuple[object, ...], Callable[[str | None], None]]] = []
        self.delivered: dict[str, list[object]] = {}
        self.given_up: list[tuple[str, tuple[object, ...], str]] = []
        self.lanes = Lanes(self._transmit, lambda *given_up: self.given_up.append(given_up), **limits)

    def _transmit(self, target: str, message: object, on_result: Callable[[str | None], None]) -> None:
        self.under_way.append((target, message.items if isinstance(message, Batch) else (message,), on_result))

    def send(self, target: str, *messages: object) -> None:
        for message in messages:
            self.lanes.queue(target, target, message)
        self.lanes.flush()

    def finish(self, index: int = 0, error: str | None = None) -> None:
        target, items, on_result = self.under_way.pop(index)
        if error is None:
            self.delivered.setdefault(target, []).extend(items)
        on_result(error)


def test_what_queues_during_a_transmit_goes_as_one_batch_with_the_next() -> None:
    transport = Transport()
    transport.send("a", 1)
    transport.send("a", 2)
    transport.send("a", 3)
    assert [items for _, items, _ in transport.under_way] == [(1,)]
    transport.finish()
    assert [items for _, items, _ in transport.under_way] == [(2, 3)]
    transport.finish()
    assert len(transport.lanes) == 0


def test_a_target_that_acknowledges_nothing_occupies_one_transmit_and_holds_up_nobody() -> None:
    transport = Transport()
    for number in range(100):
        transport.send("hung", number)
    transport.send("other", "x")
    assert [target for target, _, _ in transport.under_way] == ["hung", "other"]


def test_messages_of_a_failed_transmit_are_given_up_with_the_reason_and_later_ones_are_tried() -> None:
    transport = Transport()
    transport.send("a", 1, 2)
    transport.send("a", 3)
    transport.finish(error="dead target")
    assert transport.given_up == [("a", (1, 2), "dead target")]
    transport.finish()
    assert transport.delivered == {"a": [3]}


@attrs.frozen
class Heavy:
    weight_bytes: int


def test_a_batch_is_bounded_in_bytes_and_what_is_heavier_goes_alone() -> None:
    transport = Transport(max_batch_bytes=1_000)
    first, light, heavy = Heavy(1), Heavy(400), Heavy(5_000)
    transport.send("a", first, light, light, light, heavy, light)
    for expected in ((first, light, light), (light,), (heavy,), (light,)):
        assert transport.under_way[0][1] == expected
        transport.finish()
    assert transport.given_up == []


def test_what_no_packet_takes_is_given_up_and_holds_up_nothing() -> None:
    transport = Transport()
    giant = Heavy(MAX_PACKET_BYTES)
    transport.send("a", "1", giant, "2")
    assert transport.given_up == [("a", (giant,), "too large")]
    transport.finish()
    assert transport.delivered == {"a": ["1", "2"]}


def test_messages_say_what_they_weigh() -> None:
    text = b"x" * 10_000
    event = UnstoredEvent(source="s", sequence=1, topic="t.x", payload_json=text, timestamp_ms=0)
    stored = StoredEvent(event=Event(id=1, topic="t.x", payload_json=text, timestamp_ms=0), source="s", sequence=1)
    join = JoinEventLog(
        cell_name="c", source="s", last_event_id=1, recent_events=(stored,), confirmed_sequence=0, unstored=(event,)
    )
    request = UpstreamRequest(kind=RequestKind.REQUEST, message=Request(b"1", "tools/call", text), revision="2025-11-25")
    answer = UpstreamAnswer(200, Response(b"1", text, b""))
    session = SessionState("key", "", "2025-11-25", "", text, ())
    for message, count in (
        (PublishEvents(events=(event, event)), 2),
        (EventsDistributed(log_incarnation=1, events=(stored,)), 1),
        (join, 2),
        (ExchangeForwarded(exchange_id="e", replica=ReplicaId("b", "r"), request=request), 1),
        (ForwardedEvent(exchange_id="e", message=Notification("n", text), event_id=None), 1),
        (ForwardedAnswer(exchange_id="e", answer=answer), 1),
        (CellAsked(question_id="q", question=SessionChanged(session)), 1),
        (CellAsked(question_id="q", question=PostedMessage(connection_id="c", body=text)), 1),
    ):
        for each in (message, Forwarded(from_cell="cell/0", incarnation=1, message=message)):
            size_bytes = len(pickle.dumps(each, pickle.HIGHEST_PROTOCOL))
            assert 0.9 * min(size_bytes, count * len(text)) < weight_bytes(each) < 1.2 * count * len(text)


def test_a_full_lane_gives_up_the_newest_message() -> None:
    transport = Transport(max_queued=2)
    transport.send("a", 1)
    transport.send("a", 2, 3, 4)
    assert transport.given_up == [("a", (4,), "overflow")]


def test_at_the_end_everything_is_handed_over_whatever_the_window() -> None:
    transport = Transport(max_batch=2)
    transport.send("a", 1)
    transport.send("a", 2, 3, 4)
    transport.lanes.queue("b", "b", 5)
    transport.lanes.flush_all()
    assert [items for _, items, _ in transport.under_way] == [(1,), (2, 3), (4,), (5,)]


def test_each_target_gets_its_messages_once_and_in_order_whatever_the_interleaving() -> None:
    chance = random.Random(7)
    transport = Transport(max_batch=3)
    sent: dict[str, list[object]] = {"a": [], "b": [], "c": []}
    for number in range(2000):
        target = chance.choice("abc")
        sent[target].append(number)
        transport.send(target, number)
        assert len({target for target, _, _ in transport.under_way}) == len(transport.under_way)
        if transport.under_way and chance.random() < 0.5:
            transport.finish(chance.randrange(len(transport.under_way)))
    while transport.under_way:
        transport.finish()
    assert transport.delivered == sent
    assert not transport.given_up
    assert len(transport.lanes) == 0
