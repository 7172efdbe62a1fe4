"""The order of a node's events: nothing lost that a cell still holds, nothing twice, ids that go on."""

from __future__ import annotations

import random

import pytest

from mcp_gateway.actors.events import event_log, event_outbox
from mcp_gateway.actors.events.event_order import EventOrder
from mcp_gateway.actors.events.event_outbox import EventOutbox, OutboxFull
from mcp_gateway.actors.messages.event_log import EventsDistributed, JoinEventLog, StoredEvent, UnstoredEvent
from mcp_gateway.transports.protocol.topics.kept_events import LostIds
from mcp_gateway.transports.protocol.topics.topic_log import InvalidTopic


def join_of(outbox: EventOutbox) -> JoinEventLog:
    return JoinEventLog(
        cell_name=outbox.source,
        source=outbox.source,
        last_event_id=outbox.last_event_id,
        recent_events=outbox.returnable,
        lost=outbox.not_returnable,
        confirmed_sequence=outbox.confirmed_sequence,
        unstored=outbox.unstored,
    )


def distributed(events: list[StoredEvent], *, is_catch_up: bool = False) -> EventsDistributed:
    return EventsDistributed(log_incarnation=1, events=tuple(events), is_catch_up=is_catch_up)


def publish(outbox: EventOutbox, *topics: str) -> list[UnstoredEvent]:
    return [outbox.publish(topic, {}, 0) for topic in topics]


def ids_of(events: list[StoredEvent]) -> list[int]:
    return [stored.event.id for stored in events]


# ---- one log


def test_events_get_ids_from_1_in_the_order_of_arrival() -> None:
    order, a, b = EventOrder(10), EventOutbox("a"), EventOutbox("b")
    assert ids_of(order.publish(publish(a, "t.one", "t.two"))) == [1, 2]
    assert ids_of(order.publish(publish(b, "t.three"))) == [3]
    assert [stored.event.topic for stored in order.after(1)] == ["t.two", "t.three"]


def test_an_event_that_comes_again_is_stored_once() -> None:
    order, a = EventOrder(10), EventOutbox("a")
    events = publish(a, "t.one")
    order.publish(events)
    assert order.publish(events) == []
    assert order.last_id == 1


def test_an_event_that_overtook_a_lost_one_waits_until_both_are_sent_again() -> None:
    order, a = EventOrder(10), EventOutbox("a")
    _, second = publish(a, "t.one", "t.two")
    assert order.publish([second]) == []
    assert [stored.event.topic for stored in order.join(join_of(a))] == ["t.one", "t.two"]


def test_an_invalid_topic_is_refused_at_its_publisher() -> None:
    outbox = EventOutbox("a")
    with pytest.raises(InvalidTopic):
        outbox.publish("not a topic", {}, 0)
    assert outbox.unstored == ()


# ---- the outbox of a cell


def test_a_cell_keeps_an_event_until_it_comes_back() -> None:
    order, a = EventOrder(10), EventOutbox("a")
    (event,) = publish(a, "t.one")
    assert a.unstored == (event,)
    assert [each.topic for each in a.take(distributed(order.publish([event]))) or ()] == ["t.one"]
    assert a.unstored == ()


def test_a_cell_takes_each_event_once() -> None:
    order, a = EventOrder(10), EventOutbox("a")
    message = distributed(order.publish(publish(a, "t.one")))
    assert len(a.take(message) or ()) == 1
    assert a.take(message) == []


def test_a_cell_that_missed_events_takes_nothing_and_asks_again() -> None:
    order, a, b = EventOrder(10), EventOutbox("a"), EventOutbox("b")
    order.publish(publish(a, "t.one"))
    later = order.publish(publish(a, "t.two"))
    assert b.take(distributed(later)) is None
    caught_up = b.take(distributed(order.after(b.last_event_id), is_catch_up=True))
    assert [event.id for event in caught_up or ()] == [1, 2]


def test_a_cell_that_comes_too_late_for_some_goes_on_with_what_is_left() -> None:
    order, a, b = EventOrder(2), EventOutbox("a"), EventOutbox("b")
    order.publish(publish(a, "t.one", "t.two", "t.three"))
    assert [event.id for event in b.take(distributed(order.after(0), is_catch_up=True)) or ()] == [2, 3]


# ---- another log after the death of the first


def test_a_new_log_goes_on_after_the_highest_id_that_any_cell_has_seen() -> None:
    order, a, b = EventOrder(10), EventOutbox("a"), EventOutbox("b")
    events = order.publish(publish(a, "t.one", "t.two"))
    a.take(distributed(events))
    b.take(distributed(events[:1]))
    second = EventOrder(10)
    second.rebuild([join_of(b), join_of(a)])
    assert ids_of(second.after(0)) == [1, 2]
    assert ids_of(second.publish(publish(a, "t.three"))) == [3]


def test_what_reached_only_another_cell_is_not_stored_twice() -> None:
    order, a, b = EventOrder(10), EventOutbox("a"), EventOutbox("b")
    b.take(distributed(order.publish(publish(a, "t.one"))))  # the log dies before it tells a
    second = EventOrder(10)
    second.rebuild([join_of(a), join_of(b)])
    second.join(join_of(a))
    assert [(stored.event.id, stored.event.topic) for stored in second.after(0)] == [(1, "t.one")]
    a.take(distributed(second.after(0), is_catch_up=True))
    assert a.unstored == ()


def test_a_cell_that_joins_late_with_higher_ids_moves_the_log_on() -> None:
    order, a, b = EventOrder(10), EventOutbox("a"), EventOutbox("b")
    b.take(distributed(order.publish(publish(a, "t.one", "t.two"))))
    second = EventOrder(10)
    second.rebuild([])
    second.join(join_of(b))
    assert ids_of(second.after(0)) == [1, 2]
    assert second.last_id == 2


def test_a_log_that_finds_its_events_on_disk_goes_on_and_knows_repeats() -> None:
    order, a = EventOrder(10), EventOutbox("a")
    events = publish(a, "t.one", "t.two")
    second = EventOrder(10, order.publish(events), last_id=2)
    assert second.rebuild([join_of(a)]) == []
    assert second.join(join_of(a)) == []  # a was never told, the disk knows better
    assert ids_of(second.publish(publish(a, "t.three"))) == [3]
    assert [stored.event.topic for stored in second.after(0)] == ["t.one", "t.two", "t.three"]


def test_what_cells_hold_beyond_the_disk_is_taken_back() -> None:
    """The disk was full for a while, then the log died."""
    order, a = EventOrder(10), EventOutbox("a")
    stored = order.publish(publish(a, "t.one", "t.two", "t.three"))
    a.take(distributed(stored))
    second = EventOrder(10, stored[:1], last_id=1)
    assert second.rebuild([join_of(a)]) == stored[1:]
    assert second.after(0) == stored


def test_a_number_to_start_at_yields_to_what_cells_know() -> None:
    order, a = EventOrder(10), EventOutbox("a")
    a.take(distributed(order.publish(publish(a, "t.one"))))
    second = EventOrder(10, last_id=1_800_000_000_000)
    second.rebuild([join_of(a)])
    assert ids_of(second.publish(publish(a, "t.two"))) == [2]
    alone = EventOrder(10, last_id=1_800_000_000_000)
    alone.rebuild([join_of(EventOutbox("b"))])
    assert ids_of(alone.publish(publish(EventOutbox("b"), "t.one"))) == [1_800_000_000_001]


def test_a_cell_that_owes_nothing_goes_on_with_a_log_that_has_forgotten_its_events() -> None:
    order, a, b = EventOrder(2), EventOutbox("a", 2), EventOutbox("b", 2)
    for outbox, topic in ((a, "t.one"), (a, "t.two"), (b, "t.x"), (b, "t.y")):
        new = order.publish(publish(outbox, topic))
        a.take(distributed(new))
        b.take(distributed(new))
    second = EventOrder(2, order.after(0), last_id=4)
    second.rebuild([join_of(a), join_of(b)])
    for outbox in (a, b):
        second.join(join_of(outbox))
    assert ids_of(second.publish(publish(a, "t.three"))) == [5]


# ---- a flood of clients beside the gateway's own


def flooded(retention: int, outbox: EventOutbox, *others: EventOutbox, count: int = 20) -> EventOrder:
    """An order of two events of the gateway, with a flood between them, which these cells have followed."""
    order = EventOrder(retention)
    for topic in ("mcp.first", *["client.flood"] * count, "mcp.last"):
        new = order.publish(publish(outbox, topic))
        for each in (outbox, *others):
            each.take(distributed(new))
    return order


def test_a_flood_of_clients_leaves_the_gateways_own_in_the_order_and_in_the_cells() -> None:
    a = EventOutbox("a", 5)
    order = flooded(5, a)
    assert ids_of(order.after(0)) == [1, *range(17, 23)]
    assert [event.id for event in a.events_after(0)] == [1, *range(17, 23)]
    assert order.lost == a.lost == LostIds(of_clients=16)


def test_a_cell_that_comes_after_a_flood_is_told_whose_the_missing_are() -> None:
    a, b = EventOutbox("a", 5), EventOutbox("b", 5)
    order = flooded(5, a)
    message = EventsDistributed(log_incarnation=1, is_catch_up=True, events=tuple(order.after(0)), lost=order.lost)
    assert [event.id for event in b.take(message) or ()] == [1, *range(17, 23)]
    assert b.lost == LostIds(of_clients=16)


def test_the_first_of_the_gateway_outlives_the_log_in_the_cells_and_in_its_file() -> None:
    a = EventOutbox("a", 5)
    order = flooded(5, a)
    in_memory = EventOrder(5)
    in_memory.rebuild([join_of(a)])
    assert in_memory.join(join_of(a)) == []
    from_file = EventOrder(5, order.after(0), order.last_id, order.lost)
    assert from_file.rebuild([join_of(a)]) == []
    for second in (in_memory, from_file):
        assert (second.after(0), second.lost) == (order.after(0), order.lost)
        assert ids_of(second.publish([a.publish("mcp.again", {}, 0)])) == [23]
        a = EventOutbox("a2", 5)


def test_what_a_cell_holds_beyond_a_file_is_taken_back_with_what_it_knows_to_be_lost() -> None:
    a, b = EventOutbox("a", 5), EventOutbox("b", 5)
    order = flooded(5, a, b)
    second = EventOrder(5, order.after(0)[:1], 1)
    assert ids_of(second.rebuild([join_of(a), join_of(b)])) == list(range(17, 23))
    assert (ids_of(second.after(0)), second.lost) == ([1, *range(17, 23)], LostIds(of_clients=16))


def test_the_gateways_own_go_back_to_a_log_before_those_of_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    a = EventOutbox("a", 50)
    flooded(50, a)
    monkeypatch.setattr(event_outbox, "RETURNED_EVENTS", 4)
    assert (ids_of(list(a.returnable)), a.not_returnable) == ([1, 18, 19, 20, 21, 22], LostIds(of_clients=17))
    monkeypatch.setattr(event_outbox, "MOST_BYTES", 3 * a.returnable[0].weight_bytes)
    assert (ids_of(list(a.returnable)), a.not_returnable.of_gateway) == ([1, 22], 0)


def test_a_hole_in_what_comes_is_noticed_by_the_id_after_which_it_goes_on() -> None:
    a, b = EventOutbox("a", 5), EventOutbox("b", 5)
    order = flooded(5, a)
    first, *rest = order.after(0)
    start = EventsDistributed(log_incarnation=1, is_catch_up=True, has_more=True, events=(first,), lost=order.lost)
    b.take(start)
    assert b.take(EventsDistributed(log_incarnation=1, events=tuple(rest[1:]), after_id=rest[0].id)) is None
    assert len(b.take(EventsDistributed(log_incarnation=1, events=tuple(rest), after_id=first.id)) or ()) == 6


def test_a_cell_goes_on_where_the_log_does_and_asks_again_where_it_has_missed_what_came_before() -> None:
    order, cell, behind = EventOrder(10), EventOutbox("a"), EventOutbox("b")
    cell.take(distributed(order.publish(publish(cell, "t.x"))))
    end = EventsDistributed(log_incarnation=1, events=(), lost=LostIds.of_both(900), after_id=1, last_id=900)
    assert (cell.take(end), cell.last_event_id, cell.lost) == ([], 900, LostIds.of_both(900))
    assert (behind.take(end), behind.last_event_id) == (None, 0)


def test_an_outbox_that_the_log_never_empties_is_full_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_gateway.actors.events.event_outbox.MOST_UNSTORED_EVENTS", 3)
    order, a = EventOrder(10), EventOutbox("a")
    events = publish(a, "t.one", "t.two", "t.three")
    with pytest.raises(OutboxFull):
        publish(a, "t.four")
    a.take(distributed(order.publish(events)))
    assert ids_of(order.publish(publish(a, "t.five"))) == [4]


def test_what_a_cell_owes_is_bounded_in_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_outbox, "MOST_BYTES", 10_000)
    order, a = EventOrder(100), EventOutbox("a")
    large = {"text": "x" * 4_000}
    events = [a.publish("t.x", large, 0) for _ in range(3)]
    with pytest.raises(OutboxFull):
        a.publish("t.x", large, 0)
    a.take(distributed(order.publish(events)))
    assert a.publish("t.x", large, 0).sequence == 4, "what was stored counts no more"
    assert [stored.event.id for stored in a.returnable] == [2, 3], "the newest that fit"


def test_events_are_sent_in_parts_that_are_easily_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "PAGE_BYTES", 10_000)
    order, a, b = EventOrder(100), EventOutbox("a"), EventOutbox("b")
    sizes = [4_000, 4_000, 4_000, 50_000, 0, 0]
    stored = order.publish([a.publish("t.x", {"text": "x" * size}, 0) for size in sizes])
    parts = event_log.pages(stored)
    assert [ids_of(list(part)) for part in parts] == [[1, 2], [3], [4], [5, 6]]
    assert event_log.pages([]) == [()]
    for number, part in enumerate(parts):
        b.take(distributed(list(part), is_catch_up=number == 0))
    assert b.last_event_id == 6


def test_a_cell_hands_out_what_came_after_an_id() -> None:
    order, a = EventOrder(10), EventOutbox("a", 3)
    a.take(distributed(order.publish(publish(a, *(f"t.n{number}" for number in range(5))))))
    assert [event.id for event in a.events_after(3)] == [4, 5]
    assert [event.id for event in a.events_after(0)] == [3, 4, 5]
    assert a.events_after(5) == []


@pytest.mark.parametrize("seed", range(30))
def test_cells_agree_and_lose_nothing_with_a_disk_that_sometimes_fails(seed: int) -> None:
    """As the next one, but a new log starts from what was committed; a failed commit stays in memory until the next."""
    chance = random.Random(seed)
    cells = {name: EventOutbox(name) for name in "abc"}
    order = EventOrder(1000)
    disk: list[StoredEvent] = []
    seen: dict[str, list[tuple[int, str]]] = {name: [] for name in cells}
    count = 0

    def tell(message: EventsDistributed, *names: str) -> None:
        for name in names:
            taken = cells[name].take(message)
            if taken is None:
                rejoin(name)
            else:
                seen[name] += [(event.id, event.topic) for event in taken]

    def commit_and_tell(new: list[StoredEvent], reach: float = 1.0) -> None:
        if chance.random() < 0.9:
            disk.extend(order.after(disk[-1].event.id if disk else 0))
        if new:
            tell(distributed(new), *(name for name in cells if chance.random() < reach))

    def rejoin(name: str) -> None:
        commit_and_tell(order.join(join_of(cells[name])))
        tell(distributed(order.after(cells[name].last_event_id), is_catch_up=True), name)

    for _ in range(300):
        name = chance.choice("abc")
        dice = chance.random()
        if dice < 0.03:
            order = EventOrder(1000, disk, disk[-1].event.id if disk else 0)
            commit_and_tell(order.rebuild([join_of(cell) for cell in cells.values()]), reach=0.0)
            for each in cells:
                rejoin(each)
        elif dice < 0.1:
            rejoin(name)
        else:
            count += 1
            events = publish(cells[name], f"t.n{count}")
            if chance.random() < 0.8:
                commit_and_tell(order.publish(events), reach=0.8)
    for each in list(cells) * 2:
        rejoin(each)
    assert seen["a"] == seen["b"] == seen["c"]
    assert [event_id for event_id, _ in seen["a"]] == list(range(1, count + 1))
    assert sorted(topic for _, topic in seen["a"]) == sorted(f"t.n{number}" for number in range(1, count + 1))


@pytest.mark.parametrize("seed", range(30))
def test_cells_agree_and_lose_nothing_whatever_is_lost_or_killed_on_the_way(seed: int) -> None:
    """Mail in both directions is lost at random, logs and never cells are killed; ours."""
    chance = random.Random(seed)
    cells = {name: EventOutbox(name) for name in "abc"}
    order = EventOrder(1000)
    seen: dict[str, list[tuple[int, str]]] = {name: [] for name in cells}
    count = 0

    def give(name: str, message: EventsDistributed) -> None:
        taken = cells[name].take(message)
        if taken is None:
            rejoin(name)
            return
        seen[name] += [(event.id, event.topic) for event in taken]

    def rejoin(name: str) -> None:
        new = order.join(join_of(cells[name]))
        for other in cells.keys() - {name}:
            give(other, distributed(new))
        give(name, distributed(order.after(cells[name].last_event_id), is_catch_up=True))

    for _ in range(300):
        name = chance.choice("abc")
        dice = chance.random()
        if dice < 0.03:
            order = EventOrder(1000)
            order.rebuild([join_of(cell) for cell in cells.values()])
            for each in cells:
                rejoin(each)
        elif dice < 0.1:
            rejoin(name)
        else:
            count += 1
            events = publish(cells[name], f"t.n{count}")
            if chance.random() < 0.8:
                new = order.publish(events)
                for other in cells:
                    if chance.random() < 0.8:
                        give(other, distributed(new))
    for each in list(cells) * 2:
        rejoin(each)
    assert seen["a"] == seen["b"] == seen["c"]
    assert sorted(topic for _, topic in seen["a"]) == sorted(f"t.n{number}" for number in range(1, count + 1))
    assert [event_id for event_id, _ in seen["a"]] == list(range(1, count + 1))
    assert all(cell.unstored == () for cell in cells.values())
