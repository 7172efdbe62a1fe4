"""The topic feed of a cell: what the edge gives it reaches those who follow, and one follower cannot hold up the others."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable

from mcp_gateway.actors.edge.topic_feed import CellTopicFeed
from mcp_gateway.actors.messages.events import PublishEvent
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.topic_log import Event, TopicPattern

EVERYTHING = TopicPattern("all")


def events(*ids: int) -> list[Event]:
    return [Event(id=event_id, topic="a.b", payload_json=b"{}", timestamp_ms=0) for event_id in ids]


def feed_of(*ids: int, retention: int = 100) -> CellTopicFeed:
    feed = CellTopicFeed(retention, lambda: None)
    feed.take(events(*ids), is_caught_up=True)
    return feed


def on_loop(test: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await test()

    asyncio.run(body())


def test_events_that_come_again_are_kept_once() -> None:
    feed = feed_of(1, 2)
    feed.take(events(1, 2, 3), is_caught_up=True)
    assert [event.id for event in feed.read(0, EVERYTHING, 10).events] == [1, 2, 3]


def test_the_newest_are_kept() -> None:
    page = feed_of(*range(1, 8), retention=3).read(2, EVERYTHING, 10)
    assert (page.gap, [event.id for event in page.events]) == ((3, 4), [5, 6, 7])


def test_who_follows_the_gateway_is_told_of_no_gap_where_events_of_clients_were_lost() -> None:
    feed = CellTopicFeed(10, lambda: None)
    feed.take(events(3, 40), is_caught_up=True, lost=LostIds(of_gateway=2, of_clients=39))
    own, of_clients = (feed.read(1, TopicPattern(pattern), 10) for pattern in ("a.*", "client.*"))
    assert ([event.id for event in own.events], own.gap) == ([3, 40], (2, 2))
    assert (of_clients.events, of_clients.gap, of_clients.next_id) == ((), (2, 39), 40)


def test_what_is_lost_beyond_what_has_come_is_told_once_it_has_come() -> None:
    feed = CellTopicFeed(10, lambda: None)
    follows = TopicPattern("client.*")
    feed.take(events(3), is_caught_up=True, lost=LostIds(of_clients=39))
    first = feed.read(0, follows, 10)
    feed.take(events(40), is_caught_up=True, lost=LostIds(of_clients=39))
    second = feed.read(first.next_id, follows, 10)
    assert (first.gap, second.gap, second.next_id) == ((1, 3), (4, 39), 40)


def test_followers_are_told_where_ids_go_on_although_nothing_has_come() -> None:
    async def test() -> None:
        feed, told = feed_of(), []
        feed.follow(lambda: told.append(feed.last_id))
        feed.take([], is_caught_up=True, last_id=500)
        feed.take([], is_caught_up=True, last_id=500)
        await asyncio.sleep(0)
        assert told == [500]
        feed.take(events(501), is_caught_up=True, last_id=501)
        assert feed.read(500, EVERYTHING, 10).gap is None

    on_loop(test)


def test_it_has_caught_up_once_it_was_told_so() -> None:
    feed = CellTopicFeed(10, lambda: None)
    seen = [feed.is_caught_up]
    for is_caught_up in (False, True, False):
        feed.take([], is_caught_up)
        seen.append(feed.is_caught_up)
    assert seen == [False, False, True, True]


def test_followers_are_told_once_for_all_events_of_a_turn() -> None:
    async def test() -> None:
        feed = feed_of(1)
        told: list[int] = []
        feed.follow(lambda: told.append(feed.last_id))
        feed.take(events(2), is_caught_up=True)
        feed.take(events(3, 4), is_caught_up=True)
        assert told == []
        await asyncio.sleep(0)
        assert told == [4]
        feed.take(events(4), is_caught_up=True)
        await asyncio.sleep(0)
        assert told == [4]

    on_loop(test)


def test_who_stops_following_is_told_nothing_more() -> None:
    async def test() -> None:
        feed = feed_of()
        told: list[str] = []
        stops = [feed.follow(lambda: told.append("a")), feed.follow(lambda: stops[2]()), feed.follow(lambda: told.append("c"))]
        feed.take(events(1), is_caught_up=True)
        stops[0]()
        await asyncio.sleep(0)
        assert told == []

    on_loop(test)


def test_many_followers_are_told_in_several_turns_so_that_others_have_theirs() -> None:
    async def test() -> None:
        feed = feed_of()
        told: list[int] = []
        for number in range(120):
            feed.follow(lambda number=number: told.append(number))  # type: ignore[misc]
        feed.take(events(1), is_caught_up=True)
        counts = []
        while len(told) < 120:
            await asyncio.sleep(0)
            counts.append(len(told))
        assert counts == [50, 100, 120]

    on_loop(test)


def test_followers_that_take_long_are_told_in_more_turns() -> None:
    async def test() -> None:
        feed = feed_of()
        told: list[int] = []

        def work(number: int) -> None:
            told.append(number)
            end_s = time.thread_time() + 0.004
            while time.thread_time() < end_s:
                pass

        for number in range(5):
            feed.follow(functools.partial(work, number))
        feed.take(events(1), is_caught_up=True)
        for turn in range(1, 6):
            await asyncio.sleep(0)
            assert told == list(range(turn))

    on_loop(test)


def test_a_pattern_is_matched_once_for_all_who_follow_it_from_one_place_until_there_is_news() -> None:
    feed = feed_of(*range(1, 51))
    matched: list[str] = []

    class Counting(TopicPattern):
        def matches(self, topic: str) -> bool:
            matched.append(topic)
            return super().matches(topic)

    first = feed.read(40, Counting("a.*"), 100)
    assert feed.read(40, Counting("a.*"), 100) is first
    assert len(matched) == 10
    feed.take(events(51), is_caught_up=True)
    assert [event.id for event in feed.read(50, Counting("a.*"), 100).events] == [51]
    assert [event.id for event in feed.read(40, Counting("a.*"), 100).events] == list(range(41, 52))


def test_news_in_the_middle_of_telling_reaches_those_who_have_been_told_already() -> None:
    async def test() -> None:
        feed = feed_of()
        seen: dict[int, int] = {}
        for number in range(120):
            feed.follow(lambda number=number: seen.update({number: feed.last_id}))  # type: ignore[misc]
        feed.take(events(1), is_caught_up=True)
        await asyncio.sleep(0)
        feed.take(events(2), is_caught_up=True)
        for _ in range(5):
            await asyncio.sleep(0)
        assert set(seen.values()) == {2}

    on_loop(test)


def test_a_follower_that_fails_does_not_keep_the_others_from_their_news() -> None:
    async def test() -> None:
        feed = feed_of()
        told: list[str] = []

        def fail() -> None:
            raise RuntimeError("a defect")

        feed.follow(fail)
        feed.follow(lambda: told.append("b"))
        feed.take(events(1), is_caught_up=True)
        await asyncio.sleep(0)
        assert told == ["b"]

    on_loop(test)


def test_what_is_published_waits_for_the_edge_which_is_woken_once() -> None:
    calls: list[int] = []
    feed = CellTopicFeed(10, lambda: calls.append(1))
    feed.publish("client.a", {"n": 1})
    feed.publish("client.b", {})
    assert (list(feed.outgoing), calls) == (
        [PublishEvent(topic="client.a", payload={"n": 1}), PublishEvent(topic="client.b", payload={})],
        [1],
    )
