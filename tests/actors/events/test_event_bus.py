"""The event bus: what is published goes to the log, what the log has ordered goes to those who asked for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from thespian.actors import ActorAddress

from mcp_gateway.actors.events.event_bus import EventBus
from mcp_gateway.actors.messages.events import EventPublished, EventsLogged, FollowLog, PublishEvent, Subscribe, Unsubscribe
from mcp_gateway.actors.messages.health import ComponentProbed, ProbeComponent
from mcp_gateway.actors.messages.lifecycle import CrashRequested
from mcp_gateway.actors.messages.status import StatusRequested
from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event
from tests.doubles.actor_stage import Peer, Stage


class Link:
    """Keeps what is published; holds what the test says the log has given so far."""

    is_caught_up = True
    lost = NOTHING_LOST
    last_event_id = 0

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.events: list[Event] = []

    def events_after(self, event_id: int) -> list[Event]:
        return [event for event in self.events if event.id > event_id]

    def publish(self, topic: str, payload: dict[str, Any], timestamp_ms: int) -> None:
        assert timestamp_ms > 1_600_000_000_000
        self.published.append((topic, payload))


def started() -> tuple[Stage, ActorAddress, Link]:
    stage, link = Stage(), Link()
    return stage, stage.start(EventBus, {}, link, name="cell/0/event-bus"), link


def on_loop(test: Callable[[], None]) -> None:
    async def body() -> None:
        test()

    asyncio.run(body())


def logged(*topics: str) -> EventsLogged:
    return EventsLogged(
        tuple(
            Event(id=number, topic=topic, payload_json=b'{"n":%d}' % number, timestamp_ms=7)
            for number, topic in enumerate(topics, 1)
        )
    )


def seen(peer: Peer) -> list[tuple[int, str]]:
    return [(event.event_id, event.topic) for event in peer.take(EventPublished)]


def test_what_is_published_goes_to_the_log_and_comes_from_nowhere_else() -> None:
    def test() -> None:
        stage, bus, link = started()
        reader = stage.peer()
        reader.say(bus, Subscribe(pattern="all", subscriber_id="r"))
        stage.tell(bus, PublishEvent(topic="mcp.replica.ejected", payload={"replica": "x"}))
        assert link.published == [("mcp.replica.ejected", {"replica": "x"})]
        assert reader.received == []  # until the log has ordered it

    on_loop(test)


def test_subscribers_get_what_matches_in_the_order_of_the_log() -> None:
    def test() -> None:
        stage, bus, _ = started()
        patterns = {"one": "mcp.replica.ejected", "tail": "mcp.replica.*", "all": "all", "other": "vsm.*"}
        readers = {name: stage.peer() for name in patterns}
        for name, pattern in patterns.items():
            readers[name].say(bus, Subscribe(pattern=pattern, subscriber_id=name))
        stage.tell(bus, logged("mcp.replica.ejected", "client.x", "mcp.replica.restored"))
        everything = [(1, "mcp.replica.ejected"), (2, "client.x"), (3, "mcp.replica.restored")]
        assert {name: seen(reader) for name, reader in readers.items()} == {
            "one": everything[:1],
            "tail": [everything[0], everything[2]],
            "all": everything,
            "other": [],
        }

    on_loop(test)


def test_an_event_carries_its_payload_and_time() -> None:
    def test() -> None:
        stage, bus, _ = started()
        reader = stage.peer()
        reader.say(bus, Subscribe(pattern="*", subscriber_id="r"))
        stage.tell(bus, logged("a.b"))
        assert reader.received == [EventPublished(event_id=1, topic="a.b", payload={"n": 1}, timestamp_ms=7)]

    on_loop(test)


def test_a_second_subscription_of_the_same_pattern_replaces_the_first_and_each_pattern_ends_alone() -> None:
    """A subscriber that has been restarted subscribes again, from its new address."""

    def test() -> None:
        stage, bus, _ = started()
        old, new = stage.peer(), stage.peer()
        for reader in (old, new):
            reader.say(bus, Subscribe(pattern="a.*", subscriber_id="r"))
        new.say(bus, Subscribe(pattern="b.*", subscriber_id="r"))
        stage.tell(bus, logged("a.x", "b.x"))
        assert (seen(old), seen(new)) == ([], [(1, "a.x"), (2, "b.x")])
        new.say(bus, Unsubscribe("a.*", "r"))
        new.say(bus, Unsubscribe("never", "r"))
        stage.tell(bus, logged("a.x", "b.x"))
        assert seen(new) == [(2, "b.x")]
        assert stage.ask(bus, StatusRequested("s")).status == {"subscriptions": 1, "published": 0}

    on_loop(test)


def test_the_edge_gets_what_it_has_missed_and_then_all_that_comes() -> None:
    def test() -> None:
        stage, bus, link = started()
        events = logged("a.one", "a.two", "a.three", "a.four").events
        link.events = list(events[:3])
        edge = stage.peer()
        edge.say(bus, FollowLog(1))
        stage.tell(bus, EventsLogged(events[3:]))
        assert edge.take(EventsLogged) == [EventsLogged(events[1:3]), EventsLogged(events[3:])]

    on_loop(test)


def test_the_edge_learns_whether_the_cell_has_caught_up_with_the_log() -> None:
    def test() -> None:
        stage, bus, link = started()
        link.is_caught_up = False
        edge = stage.peer()
        edge.say(bus, FollowLog(0))
        stage.tell(bus, EventsLogged((), is_caught_up=True))
        assert edge.take(EventsLogged) == [EventsLogged((), False), EventsLogged((), True)]

    on_loop(test)


def test_the_edge_learns_of_which_namespace_events_were_lost() -> None:
    def test() -> None:
        stage, bus, link = started()
        link.lost = LostIds(of_clients=7)
        edge = stage.peer()
        edge.say(bus, FollowLog(0))
        stage.tell(bus, EventsLogged((), lost=LostIds(of_clients=9)))
        assert [each.lost.of_clients for each in edge.take(EventsLogged)] == [7, 9]

    on_loop(test)


def test_what_waits_at_a_bus_that_crashes_is_published_all_the_same() -> None:
    def test() -> None:
        stage, bus, link = started()
        stage.system.post_all([(bus, CrashRequested()), (bus, PublishEvent(topic="a.b", payload={"n": 1}))])
        assert link.published == [("a.b", {"n": 1})]
        assert not stage.is_alive(bus)

    on_loop(test)


def test_it_says_that_it_is_well() -> None:
    def test() -> None:
        stage, bus, _ = started()
        assert stage.ask(bus, ProbeComponent("p")) == ComponentProbed("p", "event-bus")

    on_loop(test)


@pytest.mark.parametrize("pattern", ["", "Upper", "a..b", "*.b"])
def test_a_pattern_that_is_none_ends_the_bus_and_not_quietly(pattern: str) -> None:
    """Subscribers are actors of ours: a wrong pattern is a defect, and a defect is a crash."""

    def test() -> None:
        stage, bus, _ = started()
        stage.peer().say(bus, Subscribe(pattern=pattern, subscriber_id="r"))
        assert not stage.is_alive(bus)

    on_loop(test)


def test_a_crash_loses_the_subscriptions() -> None:
    def test() -> None:
        stage, bus, link = started()
        reader = stage.peer()
        reader.say(bus, Subscribe(pattern="all", subscriber_id="r"))
        stage.tell(bus, CrashRequested())
        successor = stage.start(EventBus, {}, link, incarnation=2)
        stage.tell(successor, logged("a.b"))
        assert reader.received == []

    on_loop(test)
