"""Topic log: readers come at their own pace, lose nothing within retention, and are told exactly what they missed beyond it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_gateway.transports.protocol.topics.topic_log import Event, InvalidTopic, TopicLog, TopicPattern, check_topic

EVERYTHING = TopicPattern("all")


def log_of(*topics, retention=100, last_id=0):
    log = TopicLog(retention, last_id=last_id)
    for topic in topics:
        log.append(topic, {}, 0)
    return log


def ids(page):
    return [event.id for event in page.events]


@pytest.mark.parametrize("topic", ["vsm", "vsm.algedonic.pain", "client.my-app_2.x", "0", "a" * 200, "all.x"])
def test_topics_are_lower_case_segments(topic):
    assert check_topic(topic) == topic


@pytest.mark.parametrize(
    "topic", ["", ".", "a.", ".a", "a..b", "A", "a b", "ä", "a/b", "a\n", "a" * 201, "all", "*", "a.*", "\ud800"]
)
def test_what_is_no_topic_is_refused(topic):
    with pytest.raises(InvalidTopic, match="is no topic"):
        check_topic(topic)
    with pytest.raises(InvalidTopic):
        log_of(topic)


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("all", ["vsm", "a.b.c"], []),
        ("*", ["vsm", "a.b.c"], []),
        ("vsm.*", ["vsm.a", "vsm.a.b"], ["vsm", "vsmx.a", "a.vsm.b"]),
        ("vsm.algedonic.*", ["vsm.algedonic.pain"], ["vsm.variety.attenuated", "vsm.algedonic"]),
        ("vsm", ["vsm"], ["vsm.a", "vs"]),
    ],
)
def test_patterns_follow_one_topic_a_tail_or_everything(pattern, matching, others):
    follows = TopicPattern(pattern)
    assert [topic for topic in matching if not follows.matches(topic)] == []
    assert [topic for topic in others if follows.matches(topic)] == []


@pytest.mark.parametrize(
    "text", ["", "**", "vsm*", "*.pain", "vsm.*.pain", "vsm.*.*", ".*", "all.*.x", "VSM.*", "vsm.", "a" * 201 + ".*"]
)
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(InvalidTopic, match="no pattern"):
        TopicPattern(text)


def test_patterns_that_mean_the_same_are_equal():
    assert TopicPattern("all") == TopicPattern("*")
    assert len({TopicPattern("vsm.*"), TopicPattern("vsm.*"), TopicPattern("vsm")}) == 2


def test_ids_rise_by_one_from_one_and_go_on_after_a_restart():
    log = TopicLog(10)
    assert log.append("a", {"x": 1}, 1_700_000_000_000) == Event(
        id=1, topic="a", payload_json=b'{"x":1}', timestamp_ms=1_700_000_000_000
    )
    assert log.append("b", {}, 0).id == 2
    assert TopicLog(10, last_id=41).append("a", {}, 0).id == 42


def test_what_the_publisher_changes_afterwards_does_not_reach_the_log():
    payload = {"x": 1}
    event = TopicLog(10).append("a", payload, 0)
    payload["x"] = 2
    assert event.payload == {"x": 1}


def event_with(event_id):
    return Event(id=event_id, topic="a", payload_json=b"{}", timestamp_ms=0)


def test_an_event_that_has_its_id_already_keeps_it():
    log = TopicLog(10, last_id=4)
    log.add(event_with(5))
    assert (log.last_id, ids(log.read(0, EVERYTHING, 10))) == (5, [5])
    with pytest.raises(ValueError, match="event 5 comes after 5"):
        log.add(event_with(5))


def test_after_a_hole_readers_are_told_of_all_that_they_cannot_read():
    log = log_of("a", "a", "a")
    log.add(event_with(7))
    log.assert_consistent()
    page = log.read(1, EVERYTHING, 10)
    assert (page.gap, ids(page)) == ((2, 6), [7])


def test_ids_go_on_after_those_that_were_skipped_which_only_earlier_readers_have_missed():
    log = TopicLog(10)
    log.append("a", {}, 0)
    for skipped_to in (100, 50):
        log.skip_to(skipped_to)
        assert (log.last_id, log.read(0, TopicPattern("all"), 10).gap) == (100, (1, 100))
    assert log.append("a", {}, 0).id == 101
    page = log.read(100, TopicPattern("all"), 10)
    assert ([event.id for event in page.events], page.gap) == ([101], None)


def test_an_event_does_not_show_its_payload():
    assert "hunter2" not in repr(TopicLog(1).append("a", {"password": "hunter2"}, 0))


def test_a_refused_topic_takes_no_id():
    log = log_of("a")
    with pytest.raises(InvalidTopic):
        log.append("A", {}, 0)
    assert log.append("b", {}, 0).id == 2


def test_a_reader_goes_on_where_it_was():
    log = log_of("a", "a", "a")
    page = log.read(0, EVERYTHING, 2)
    assert (ids(page), page.next_id, page.gap, page.has_more) == ([1, 2], 2, None, True)
    page = log.read(page.next_id, EVERYTHING, 2)
    assert (ids(page), page.next_id, page.gap, page.has_more) == ([3], 3, None, False)
    assert ids(log.read(page.next_id, EVERYTHING, 2)) == []


def test_a_reader_of_one_topic_is_not_shown_the_others_again():
    log = log_of("a", "b", "a", "b", "b")
    page = log.read(0, TopicPattern("a"), 10)
    assert (ids(page), page.next_id) == ([1, 3], 5)


def test_a_late_reader_is_told_exactly_which_ids_it_missed():
    log = log_of(*"aaaaaaa", retention=3)
    page = log.read(2, EVERYTHING, 10)
    assert (page.gap, ids(page)) == ((3, 4), [5, 6, 7])
    assert log.read(4, EVERYTHING, 10).gap is None
    assert log.read(3, EVERYTHING, 10).gap == (4, 4)


def test_what_was_lost_in_a_restart_is_a_gap():
    log = TopicLog(10, last_id=20)
    page = log.read(5, EVERYTHING, 10)
    assert (page.gap, ids(page), page.next_id) == ((6, 20), [], 20)
    assert log.read(20, EVERYTHING, 10).gap is None


def test_an_id_of_another_time_reads_on_from_the_end():
    page = log_of("a", "a").read(500, EVERYTHING, 10)
    assert (ids(page), page.next_id, page.gap) == ([], 2, None)


def test_a_reader_of_a_rare_topic_gets_an_empty_page_rather_than_holding_up_the_log():
    log = log_of("rare", *["a"] * 25_000, "rare", retention=30_000)
    page, reads, found = log.read(0, TopicPattern("rare"), 10), 1, []
    found += ids(page)
    while page.has_more:
        page, reads = log.read(page.next_id, TopicPattern("rare"), 10), reads + 1
        found += ids(page)
    assert (found, reads) == ([1, 25_002], 3)


@pytest.mark.parametrize(("after_id", "limit"), [(-1, 1), (0, 0)])
def test_reads_without_meaning_are_refused(after_id, limit):
    with pytest.raises(ValueError, match="must be at least"):
        log_of().read(after_id, EVERYTHING, limit)


@pytest.mark.parametrize(("retention", "last_id"), [(0, 0), (1, -1)])
def test_logs_without_meaning_are_refused(retention, last_id):
    with pytest.raises(ValueError, match="must be at least"):
        TopicLog(retention, last_id=last_id)


def test_dropping_the_oldest_stays_cheap_in_a_long_life():
    log = TopicLog(1_000)
    started_s = time.thread_time()
    for _ in range(50_000):
        log.append("a", None, 0)
        log.read(log.last_id - 1, EVERYTHING, 1)
    assert time.thread_time() - started_s < 5.0
    log.assert_consistent()


@settings(max_examples=150, deadline=None)
@given(
    retention=st.integers(1, 6),
    steps=st.lists(st.sampled_from(["a.x", "a.y", "b", "read"]), max_size=40),
    pattern=st.sampled_from(["all", "a.*", "b"]),
    limit=st.integers(1, 3),
)
def test_every_id_is_either_read_or_told_to_be_lost(retention, steps, pattern, limit):
    follows = TopicPattern(pattern)
    log, wanted, accounted, cursor = TopicLog(retention), set(), set(), 0
    for step in [*steps, *["read"] * 40]:
        if step != "read":
            event = log.append(step, {}, 0)
            wanted |= {event.id} if follows.matches(step) else set()
        else:
            page = log.read(cursor, follows, limit)
            lost = set(range(page.gap[0], page.gap[1] + 1)) if page.gap else set()
            assert not accounted & (lost | set(ids(page))), "nothing is told twice"
            assert ids(page) == sorted(ids(page))
            assert len(page.events) <= limit
            assert page.has_more is (page.next_id < log.last_id)
            accounted |= lost | set(ids(page))
            cursor = page.next_id
        log.assert_consistent()
    assert wanted <= accounted
    assert cursor == log.last_id
