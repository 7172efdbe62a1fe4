"""The mark is kept by the file system alone, and a full disk takes it."""

from __future__ import annotations

from pathlib import Path

from mcp_gateway.actors.storage.unwritten_mark import SUFFIX, UnwrittenMark
from tests.doubles.full_disk import file_size_limit


def test_a_mark_outlives_who_has_set_it(tmp_path: Path) -> None:
    file = tmp_path / "events.sqlite3"
    assert not UnwrittenMark(file).is_set
    UnwrittenMark(file).set()
    assert UnwrittenMark(file).is_set
    UnwrittenMark(file).clear()
    assert not UnwrittenMark(file).is_set
    assert (tmp_path / f"events.sqlite3{SUFFIX}").stat().st_mode & 0o077 == 0


def test_a_full_disk_takes_a_mark_whose_place_is_there(tmp_path: Path) -> None:
    mark = UnwrittenMark(tmp_path / "events.sqlite3")
    mark.clear()
    with file_size_limit(1):
        mark.set()
    assert mark.is_set


def test_where_nothing_can_be_written_it_is_not_set_and_nothing_is_raised(tmp_path: Path) -> None:
    mark = UnwrittenMark(tmp_path / "not there" / "events.sqlite3")
    mark.set()
    assert not mark.is_set
