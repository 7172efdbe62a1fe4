"""Events that wait for the cluster's log outlive the process that took them."""

from __future__ import annotations

import logging
from pathlib import Path

from mcp_gateway.actors.messages.event_log import UnstoredEvent
from mcp_gateway.actors.storage.event_spool import EventSpool


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


def test_without_a_disk_events_are_numbered_all_the_same() -> None:
    spool = EventSpool(None, logging.log)
    assert [each.number for each in spool.add([event(1), event(2)])] == [1, 2]
    spool.forget([("x", 1)])
    assert spool.loaded == []
