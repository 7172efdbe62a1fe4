"""Events that wait for the cluster's log outlive the process that took them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from mcp_gateway.actors.messages.event_log import UnstoredEvent
from mcp_gateway.actors.storage.event_spool import FILE_NAME, FORGET, EventSpool


def event(sequence: int) -> UnstoredEvent:
    return UnstoredEvent(source="cell", sequence=sequence, topic="mcp.x", payload_json=b'{"a":1}', timestamp_ms=7)


def test_what_waits_is_there_after_a_crash_in_its_order_and_under_its_own_numbers(tmp_path: Path) -> None:
    first = EventSpool(tmp_path, logging.log)
    spooled = first.add([event(1), event(2)]) + first.add([event(3)])
    assert [each.number for each in spooled] == [1, 2, 3]
    first.forget([(spooled[1].spool, spooled[1].number)])
    first.close()
    second = EventSpool(tmp_path, logging.log)
    assert second.loaded == [spooled[0], spooled[2]]
    (fresh,) = second.add([event(4)])
    assert fresh.spool != spooled[0].spool
    second.close()
    third = EventSpool(tmp_path, logging.log)
    assert third.loaded == [spooled[0], spooled[2], fresh]
    third.close()


@pytest.mark.parametrize("bounds", [{"most_events": 2}, {"most_bytes": 2 * event(1).weight_bytes}], ids=["events", "bytes"])
@pytest.mark.parametrize("with_disk", [True, False], ids=["disk", "memory"])
def test_of_what_comes_while_as_much_waits_as_may_nothing_is_kept_until_some_has_gone(
    bounds: dict[str, int], with_disk: bool, tmp_path: Path
) -> None:
    said: list[str] = []
    spool = EventSpool(tmp_path if with_disk else None, lambda _level, text: said.append(text), **bounds)
    first, second = spool.add([event(1), event(2)])
    assert said == []
    assert spool.add([event(3), event(4)]) == []
    assert len(said) == 1
    spool.forget([(first.spool, first.number), ("another's", 1)])
    (fifth,) = spool.add([event(5), event(6)])
    assert (fifth.event.sequence, fifth.number, len(said)) == (5, 3, 2)
    spool.close()
    if with_disk:
        again = EventSpool(tmp_path, lambda _level, text: said.append(text), **bounds)
        assert again.loaded == [second, fifth]
        assert again.add([event(7)]) == []
        again.close()


def test_what_comes_back_is_found_without_looking_through_all_that_waits(tmp_path: Path) -> None:
    """Of 50,000 events the first 256 that came back took a minute, in which the log did nothing else and counted as hanging."""
    spool = EventSpool(tmp_path, logging.log)
    spool.add([event(1)])
    spool.close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file:
        plan = file.execute(f"EXPLAIN QUERY PLAN {FORGET}", ("spool", 1)).fetchall()
    assert "USING INDEX by_place (spool=? AND number=?)" in str(plan)


def test_without_a_disk_events_are_numbered_all_the_same() -> None:
    spool = EventSpool(None, logging.log)
    assert [each.number for each in spool.add([event(1), event(2)])] == [1, 2]
    spool.forget([("x", 1)])
    assert spool.loaded == []
