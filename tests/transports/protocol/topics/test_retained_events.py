"""What a cell keeps for followers: clients and the gateway cannot push each other's events out of reach."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.topics.retained_events import RetainedEvents
from mcp_gateway.transports.protocol.topics.topic_log import Event, Page, TopicPattern


def kept(*topics: str, retention: int = 100) -> RetainedEvents:
    events = RetainedEvents(retention)
    for topic in topics:
        add(events, topic)
    return events


def add(events: RetainedEvents, topic: str, event_id: int | None = None) -> Event:
    event = Event(id=event_id or events.last_id + 1, topic=topic, payload_json=b"{}", timestamp_ms=0)
    events.add(event)
    return event


def read(events: RetainedEvents, pattern: str, after_id: int = 0, limit: int = 100) -> Page:
    return events.read(after_id, TopicPattern(pattern), limit)


def ids(page: Page) -> list[int]:
    return [event.id for event in page.events]


@pytest.mark.parametrize(
    ("pattern", "is_within", "is_without"),
    [
        ("client.*", True, False),
        ("client.a.b", True, False),
        ("client.a.*", True, False),
        ("client", False, True),
        ("clients.*", False, True),
        ("vsm.*", False, True),
        ("vsm.client.a", False, True),
        ("all", False, False),
        ("*", False, False),
    ],
)
def test_a_pattern_is_of_clients_or_of_the_gateway_or_of_both(pattern: str, is_within: bool, is_without: bool) -> None:
    follows = TopicPattern(pattern)
    assert (follows.is_within("client."), follows.is_without("client.")) == (is_within, is_without)


def test_a_flood_of_clients_leaves_the_history_of_the_gateway_to_who_follows_it() -> None:
    events = kept("vsm.a", "mcp.b", *["client.flood"] * 1_000, "vsm.c", retention=10)
    page = read(events, "vsm.*")
    assert (ids(page), page.gap, page.next_id, page.has_more) == ([1, 1_003], None, 1_003, False)
    assert ids(read(events, "mcp.b")) == [2]
    of_clients = read(events, "client.*")
    assert (ids(of_clients), of_clients.gap) == (list(range(993, 1_003)), (1, 992))
    everything = read(events, "all")
    assert (ids(everything), everything.gap) == (list(range(994, 1_004)), (1, 993))


def test_the_gateway_cannot_push_out_what_clients_have_said_either() -> None:
    events = kept("client.a", *["mcp.busy"] * 50, retention=10)
    assert (ids(read(events, "client.*")), read(events, "client.*").gap) == ([1], None)


@pytest.mark.parametrize(("count", "gap"), [(10, None), (11, (1, 1)), (30, (1, 20))])
def test_of_each_kind_as_many_are_kept_as_the_retention_says(count: int, gap: tuple[int, int] | None) -> None:
    assert read(kept(*["vsm.a"] * count, retention=10), "vsm.*").gap == gap


def test_after_a_hole_all_are_told_of_all_that_they_cannot_read() -> None:
    events = kept("vsm.a", "client.a")
    add(events, "vsm.b", 7)
    for pattern in ("vsm.*", "client.*", "all"):
        assert read(events, pattern, 1).gap == (2, 6)
    assert ids(read(events, "vsm.*")) == [7]
    events.assert_consistent()


def test_who_begins_after_ids_that_were_skipped_is_told_of_no_gap() -> None:
    log = RetainedEvents(10)
    log.skip_to(1_000)
    assert log.last_id == 1_000
    log.add(Event(id=1_001, topic="mcp.a", payload_json=b"{}", timestamp_ms=0))
    for pattern, count in (("all", 1), ("mcp.*", 1), ("client.*", 0)):
        page = log.read(1_000, TopicPattern(pattern), 10)
        assert (page.gap, len(page.events), page.next_id) == (None, count, 1_001)
        assert log.read(7, TopicPattern(pattern), 10).gap == (8, 1_000)


def test_an_id_of_another_time_reads_on_from_the_end() -> None:
    page = read(kept("vsm.a", "client.a"), "vsm.*", 500)
    assert (ids(page), page.next_id, page.gap, page.has_more) == ([], 2, None, False)


@pytest.mark.parametrize(("after_id", "limit"), [(-1, 1), (0, 0)])
@pytest.mark.parametrize("pattern", ["vsm.*", "client.*", "all"])
def test_reads_without_meaning_are_refused(pattern: str, after_id: int, limit: int) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        read(kept("vsm.a"), pattern, after_id, limit)


def test_adding_and_reading_at_the_end_stay_cheap_in_a_long_life() -> None:
    events = RetainedEvents(1_000)
    started_s = time.thread_time()
    for number in range(30_000):
        add(events, "client.a" if number % 2 else "vsm.a")
        read(events, "vsm.*", events.last_id - 1, 1)
    assert time.thread_time() - started_s < 5.0
    events.assert_consistent()


@settings(max_examples=200, deadline=None)
@given(
    retention=st.integers(1, 5),
    steps=st.lists(st.sampled_from(["vsm.x", "vsm.y", "client.x", "client.y", "read", "hole"]), max_size=40),
    pattern=st.sampled_from(["all", "vsm.*", "vsm.x", "client.*", "client.y"]),
    limit=st.integers(1, 3),
)
def test_every_id_is_either_read_or_told_to_be_lost_and_none_beyond_what_the_kind_has_lost(
    retention: int, steps: list[str], pattern: str, limit: int
) -> None:
    follows = TopicPattern(pattern)
    events, wanted, accounted, cursor = RetainedEvents(retention), set[int](), set[int](), 0
    has_hole, of_kind = False, 0
    for step in [*steps, *["read"] * 60]:
        if step == "hole":
            has_hole = True
            event = add(events, step, events.last_id + 3)
            wanted |= {event.id} if follows.matches(step) else set()
        elif step != "read":
            event = add(events, step)
            wanted |= {event.id} if follows.matches(step) else set()
            of_kind += pattern == "all" or step.partition(".")[0] == pattern.partition(".")[0]
        else:
            page = events.read(cursor, follows, limit)
            lost = set(range(page.gap[0], page.gap[1] + 1)) if page.gap else set()
            assert not accounted & (lost | set(ids(page))), "nothing is told twice"
            assert ids(page) == sorted(ids(page))
            assert len(page.events) <= limit
            assert page.has_more is (page.next_id < events.last_id)
            assert not lost or has_hole or of_kind > retention, "nothing of this kind was lost"
            accounted |= lost | set(ids(page))
            cursor = page.next_id
        events.assert_consistent()
    assert wanted <= accounted
    assert cursor == events.last_id
