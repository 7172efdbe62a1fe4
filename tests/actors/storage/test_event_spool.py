"""Events that wait for the cluster's log outlive the process that took them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

import pytest

from mcp_gateway.actors.messages.event_log import UnstoredEvent
from mcp_gateway.actors.storage import sqlite_file
from mcp_gateway.actors.storage.event_spool import FILE_NAME, FORGET, EventSpool
from tests.doubles.full_disk import file_size_limit


def event(sequence: int, payload: bytes = b'{"a":1}') -> UnstoredEvent:
    return UnstoredEvent(source="cell", sequence=sequence, topic="mcp.x", payload_json=payload, timestamp_ms=7)


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


# ---- failures while it runs


def loaded_after(path: Path) -> list[object]:
    """What the next start finds."""
    spool = EventSpool(path, logging.log)
    spool.close()
    return list(spool.loaded)


LARGE = b"1" * 200_000


@pytest.mark.parametrize("by", ["what is published", "what comes back", "its end"])
def test_what_a_full_disk_has_missed_is_kept_as_soon_as_there_is_room_and_what_came_back_is_not(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that it would wait in memory alone until a restart, and what came back would be appended again at each."""
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    earlier = EventSpool(tmp_path, logging.log)
    first, second = earlier.add([event(1), event(2)])
    earlier.close()
    said: list[str] = []
    spool = EventSpool(tmp_path, lambda _level, text: said.append(text))
    third, fourth = spool.add([event(3), event(4)])
    with file_size_limit(150_000):
        fifth, sixth = spool.add([event(5, LARGE), event(6, LARGE)])
        assert len(said) == 1
        spool.forget([first.place, fourth.place, fifth.place])
        (seventh,) = spool.add([event(7)])
    assert len(said) == 1
    waiting = [second, third, sixth, seventh]
    if by == "what is published":
        waiting += spool.add([event(8)])
    elif by == "what comes back":
        spool.forget([waiting.pop(0).place])
    if by != "its end":
        assert "again" in said[-1]
        waiting += spool.add([event(9)])
    spool.close()
    assert "again" in said[-1]
    assert loaded_after(tmp_path) == waiting


def test_a_new_file_takes_the_place_of_one_that_was_removed_with_all_that_waits(tmp_path: Path) -> None:
    spool = EventSpool(tmp_path, logging.log)
    waiting = spool.add([event(1), event(2)])
    for each in tmp_path.iterdir():
        each.unlink()
    waiting += spool.add([event(3)])
    waiting += spool.add([event(4)])
    spool.close()
    assert loaded_after(tmp_path) == waiting


def test_what_another_left_in_the_file_that_it_had_meanwhile_is_left_to_the_next_start(tmp_path: Path) -> None:
    """Nobody has read it, so nobody has appended it."""
    other = EventSpool(tmp_path, logging.log)
    of_other = other.add([event(1)])
    said: list[str] = []
    spool = EventSpool(tmp_path, lambda _level, text: said.append(text))
    assert "another gateway" in said[-1]
    waiting = spool.add([event(2)])
    other.close()
    spool.close()
    assert "again" in said[-1]
    assert loaded_after(tmp_path) == [*of_other, *waiting]
