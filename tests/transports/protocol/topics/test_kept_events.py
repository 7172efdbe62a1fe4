"""The newest events of each namespace: what one loses says nothing of the other, wherever the events go."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.topics.kept_events import NOTHING_LOST, KeptEvents, LostIds, is_of_clients


@attrs.frozen
class Logged:
    id: int
    topic: str


def kept(*topics: str, retention: int = 10, lost: LostIds = NOTHING_LOST) -> KeptEvents[Logged]:
    return KeptEvents(retention, [Logged(event_id, topic) for event_id, topic in enumerate(topics, start=1)], lost)


def ids(events: KeptEvents[Logged], after_id: int = 0) -> list[int]:
    return [event.id for event in events.after(after_id)]


@pytest.mark.parametrize(
    ("topic", "is_theirs"), [("client.a", True), ("client", False), ("clients.a", False), ("mcp.client.a", False)]
)
def test_a_topic_is_of_clients_or_of_the_gateway(topic: str, is_theirs: bool) -> None:
    assert is_of_clients(topic) is is_theirs
    assert LostIds(of_gateway=5).is_before(Logged(5, topic)) is is_theirs
    assert LostIds(of_clients=5).is_before(Logged(5, topic)) is not is_theirs
    assert LostIds.of_both(5).is_before(Logged(6, topic))


@pytest.mark.parametrize(("count", "lost_id"), [(10, 0), (11, 2), (25, 16)])
def test_of_each_namespace_as_many_are_kept_as_the_retention_says(count: int, lost_id: int) -> None:
    events = kept("mcp.a", *["client.a"] * count)
    assert ids(events) == [1, *range(max(2, lost_id + 1), count + 2)]
    assert events.lost == LostIds(of_gateway=0, of_clients=lost_id)


def test_what_lies_between_the_namespaces_counts_as_lost_where_nothing_is_known_of_it() -> None:
    events = kept("mcp.a", "client.a")
    events.add(Logged(7, "mcp.b"))
    assert (ids(events), events.lost) == ([7], LostIds.of_both(6))


def test_ids_that_one_namespace_has_lost_are_no_hole_in_the_other() -> None:
    events = KeptEvents(10, [Logged(3, "mcp.a"), Logged(7, "mcp.b"), Logged(91, "client.a")], LostIds(2, 90))
    assert (ids(events), events.lost, events.last_id) == ([3, 7, 91], LostIds(2, 90), 91)
    events.add(Logged(95, "mcp.c"))
    assert (ids(events), events.lost) == ([95], LostIds.of_both(94))


def test_only_what_is_yet_to_come_can_be_lost_on_the_way() -> None:
    events = kept("mcp.a", "client.a", "client.b")
    events.lose(LostIds(of_gateway=3, of_clients=3))
    assert (ids(events), events.lost) == ([1, 2, 3], NOTHING_LOST)
    events.lose(LostIds(of_clients=40))
    assert (ids(events), events.lost) == ([1], LostIds(of_clients=40))
    events.add(Logged(12, "mcp.b"))
    events.add(Logged(41, "client.c"))
    assert ids(events) == [1, 12, 41]


def test_what_comes_although_it_was_told_as_lost_is_kept() -> None:
    """A log that promised its cells more than it could send, because it died, is followed by one that knows less."""
    events = kept("client.a", lost=LostIds(of_clients=40))
    assert (ids(events), events.lost.of_clients) == ([1], 0)


def test_ids_go_on_where_they_were_said_to() -> None:
    events = KeptEvents[Logged](10, (), LostIds.of_both(1_000), 1_000)
    events.add(Logged(1_001, "mcp.a"))
    assert (ids(events), events.lost, events.last_id) == ([1_001], LostIds.of_both(1_000), 1_001)


def test_ids_that_are_skipped_count_as_lost_where_nothing_is_known_of_them() -> None:
    events = kept("mcp.a", "client.a")
    events.skip_to(2)
    assert (ids(events), events.lost) == ([1, 2], NOTHING_LOST)
    events.lose(LostIds(of_clients=40))
    events.skip_to(30)
    assert (ids(events), events.lost, events.last_id) == ([1], LostIds(of_clients=40), 30)
    events.skip_to(50)
    assert (ids(events), events.lost, events.last_id) == ([], LostIds.of_both(50), 50)


def test_an_id_that_is_there_already_and_a_log_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="event 1 comes after 1"):
        kept("mcp.a").add(Logged(1, "mcp.a"))
    with pytest.raises(ValueError, match="must be at least 1"):
        KeptEvents(0)


@settings(max_examples=200, deadline=None)
@given(
    retentions=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    topics=st.lists(st.sampled_from(["mcp.x", "client.x", "hole", "skip", "take over", "look"]), max_size=50),
)
def test_who_takes_over_from_time_to_time_holds_what_is_left_and_knows_of_each_namespace_what_is_not(
    retentions: tuple[int, int], topics: list[str]
) -> None:
    """As a log, its file, and cells that join it now and then."""
    first, second = KeptEvents[Logged](retentions[0]), KeptEvents[Logged](retentions[1])
    published: list[Logged] = []
    unknown: set[int] = set()
    for topic in [*topics, "take over"]:
        if topic == "take over":
            second.lose(first.lost)
            for event in first.after(second.last_id):
                second.add(event)
            second.skip_to(first.last_id)
        elif topic == "skip":
            unknown |= {first.last_id + 1, first.last_id + 2}
            first.skip_to(first.last_id + 2)
        elif topic == "hole":
            unknown |= {first.last_id + 1, first.last_id + 2}
            published.append(Logged(first.last_id + 3, "mcp.x"))
            first.add(published[-1])
        elif topic != "look":
            published.append(Logged(first.last_id + 1, topic))
            first.add(published[-1])
        for events in (first, second):
            events.assert_consistent()
            seen = [event for event in published if event.id <= events.last_id]
            assert events.after(0) == [event for event in seen if events.lost.is_before(event)], "all that is not told as lost"
            for namespace, lost_id in ((False, events.lost.of_gateway), (True, events.lost.of_clients)):
                own = sum(is_of_clients(event.topic) is namespace for event in published)
                is_hole = any(each <= lost_id for each in unknown)
                assert not lost_id or is_hole or own > min(retentions), "nothing of this namespace was lost"
    assert second.last_id == first.last_id
