"""A subscriber's place in the log: everything once and in order, never more under way than allowed, told of what is lost."""

from __future__ import annotations

import random

import pytest

from mcp_gateway.transports.protocol.topics.topic_cursor import AHEAD_GRACE_S, Portion, TopicCursor
from mcp_gateway.transports.protocol.topics.topic_log import Page, TopicLog, TopicPattern

EVERYTHING = TopicPattern("all")


class Log:
    """A topic log that the test fills."""

    def __init__(self, *topics: str, retention: int = 100, is_caught_up: bool = True) -> None:
        self._log = TopicLog(retention)
        self.is_caught_up = is_caught_up
        self.ids_never_fall = False
        self.publish(*topics)

    def publish(self, *topics: str) -> None:
        for topic in topics:
            self._log.append(topic, {}, 0)

    @property
    def last_id(self) -> int:
        return self._log.last_id

    def read(self, after_id: int, pattern: TopicPattern, limit: int) -> Page:
        return self._log.read(after_id, pattern, limit)


def cursor(after_id: int | None = None, *, pattern: str = "all", max_in_flight: int = 2) -> TopicCursor:
    return TopicCursor(TopicPattern(pattern), after_id=after_id, max_in_flight=max_in_flight)


def ids(portion: Portion) -> list[int]:
    return [event.id for event in portion.events]


def test_without_a_place_it_starts_with_what_comes_next() -> None:
    log, reader = Log("a", "a"), cursor()
    assert ids(reader.take(log, 0.0)) == []
    log.publish("a")
    assert ids(reader.take(log, 0.0)) == [3]


def test_with_a_place_it_goes_on_there() -> None:
    assert ids(cursor(1).take(Log("a", "a", "a"), 0.0)) == [2, 3]


def test_nothing_is_new_before_the_cell_has_caught_up_with_the_log() -> None:
    """Else a client that came first would be sent the whole past."""
    log, fresh, resuming = Log(is_caught_up=False), cursor(), cursor(1)
    assert ids(fresh.take(log, 0.0)) == ids(resuming.take(log, 0.0)) == []
    log.publish("a", "a")
    log.is_caught_up = True
    assert (ids(fresh.take(log, 0.0)), ids(resuming.take(log, 0.0))) == ([], [2])


def test_with_a_place_it_goes_on_with_what_is_here_before_the_cell_has_caught_up() -> None:
    """As with the copy of a node that cannot reach its cluster."""
    log, resuming, ahead = Log("a", "a", is_caught_up=False), cursor(1), cursor(3)
    assert (ids(resuming.take(log, 0.0)), ids(ahead.take(log, 0.0))) == ([2], [])
    log.publish("a", "a")
    assert (ids(resuming.take(log, 0.0)), ids(ahead.take(log, 0.0))) == ([3], [4])


def test_no_more_is_handed_out_than_may_be_in_flight() -> None:
    log, reader = Log("a", "a", "a", "a", "a"), cursor(0)
    portion = reader.take(log, 0.0)
    assert (ids(portion), portion.has_more) == ([1, 2], True)
    assert ids(reader.take(log, 0.0)) == []
    reader.flushed(1)
    assert ids(reader.take(log, 0.0)) == [3]
    reader.flushed(2)
    assert ids(reader.take(log, 0.0)) == [4, 5]


def test_one_episode_of_lagging_is_told_once() -> None:
    log, reader = Log(), cursor()
    reader.take(log, 0.0)
    log.publish("a", "a")
    assert reader.take(log, 0.0).lag_began is False  # there was room for both
    assert reader.take(log, 0.0).lag_began is False  # and nothing more waits
    log.publish("a")
    assert [reader.take(log, 0.0).lag_began for _ in range(3)] == [True, False, False]
    reader.flushed(1)
    assert ids(reader.take(log, 0.0)) == [3]  # caught up: the episode is over
    log.publish("a", "a")
    assert [reader.take(log, 0.0).lag_began for _ in range(3)] == [True, False, False]


def test_events_of_other_topics_make_nobody_lag() -> None:
    log, reader = Log(), cursor(pattern="a", max_in_flight=1)
    reader.take(log, 0.0)
    log.publish("a", "b", "b")
    assert ids(reader.take(log, 0.0)) == [1]
    assert reader.take(log, 0.0) == Portion()
    log.publish("a")
    assert reader.take(log, 0.0).lag_began is True


def test_a_backlog_from_before_a_subscriber_came_is_no_lagging() -> None:
    log, reader = Log("a", "a", "a"), cursor(0, max_in_flight=1)
    assert [reader.take(log, 0.0).lag_began for _ in range(3)] == [False, False, False]
    for _ in range(2):
        reader.flushed(1)
        reader.take(log, 0.0)
    assert reader.after_id == 3
    log.publish("a")
    assert reader.take(log, 0.0).lag_began is True


def test_what_retention_has_dropped_is_told_before_what_is_left() -> None:
    log = Log(*"aaaaaaa", retention=3)
    portion = cursor(1, max_in_flight=10).take(log, 0.0)
    assert (portion.gap, ids(portion)) == ((2, 4), [5, 6, 7])


def test_a_place_beyond_the_end_is_waited_for() -> None:
    """Another cell had more of the log already."""
    log, reader = Log("a", "a"), cursor(4)
    assert ids(reader.take(log, 0.0)) == []
    log.publish("a", "a", "a")
    assert ids(reader.take(log, 1.0)) == [5]


def test_a_place_in_a_log_that_is_no_more_starts_this_one_from_the_beginning() -> None:
    log, reader = Log("a", "a"), cursor(500)
    assert reader.take(log, 10.0) == Portion(wait_s=AHEAD_GRACE_S)
    assert reader.take(log, 10.0 + AHEAD_GRACE_S - 0.5) == Portion(wait_s=0.5)
    assert ids(reader.take(log, 10.0 + AHEAD_GRACE_S)) == [1, 2]


def test_a_place_that_another_node_of_a_cluster_has_given_is_waited_for_as_long_as_this_one_is_behind() -> None:
    log, reader = Log("a", "a"), cursor(4)
    log.ids_never_fall = True
    for now_s in (10.0, 10.0 + AHEAD_GRACE_S, 1_000.0):
        assert reader.take(log, now_s) == Portion()
    log.publish("a", "a", "a")
    assert ids(reader.take(log, 1_001.0)) == [5]


def test_the_grace_begins_when_the_log_is_complete() -> None:
    log, reader = Log("a"), cursor(500)
    log.is_caught_up = False
    assert reader.take(log, 10.0) == Portion()
    log.is_caught_up = True
    assert reader.take(log, 20.0) == Portion(wait_s=AHEAD_GRACE_S)
    assert ids(reader.take(log, 20.0 + AHEAD_GRACE_S)) == [1]


@pytest.mark.parametrize("seed", range(40))
def test_every_wanted_event_is_handed_out_once_and_in_order_or_lies_in_a_gap(seed: int) -> None:
    chance = random.Random(seed)
    log = Log(retention=20)
    pattern = TopicPattern(chance.choice(["all", "a.*", "b"]))
    limit = chance.randint(1, 5)
    reader = TopicCursor(pattern, after_id=0, max_in_flight=limit)
    wanted: list[int] = []
    got: list[int] = []
    lost: set[int] = set()
    in_flight = 0

    def take() -> None:
        nonlocal in_flight
        portion = reader.take(log, 0.0)
        if portion.gap is not None:
            lost.update(range(portion.gap[0], portion.gap[1] + 1))
        got.extend(ids(portion))
        in_flight += len(portion.events)
        assert in_flight == reader.in_flight <= limit

    def flush(count: int) -> None:
        nonlocal in_flight
        reader.flushed(count)
        in_flight -= count

    for _ in range(200):
        match chance.choice(["publish", "publish", "take", "flush"]):
            case "publish":
                topic = chance.choice(["a.x", "a.y", "b"])
                log.publish(topic)
                if pattern.matches(topic):
                    wanted.append(log.last_id)
            case "take":
                take()
            case "flush":
                flush(chance.randint(0, in_flight))
    while reader.after_id != log.last_id:
        flush(in_flight)
        take()
    assert got == [event_id for event_id in wanted if event_id not in lost]
