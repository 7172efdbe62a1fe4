"""Daily quotas on disk: what cells add up, what each is told, and what a broken file costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.storage import sqlite_file
from mcp_gateway.actors.storage.quota_file import FILE_NAME, QuotaFile

MANY = 1_000


def test_cells_add_up_and_each_is_told_of_all_clients_then_of_those_that_have_changed(tmp_path: Path) -> None:
    one, two = QuotaFile(tmp_path, ""), QuotaFile(tmp_path, "")
    assert one.add(7, {"ann": 2, "bob": 1})
    assert two.add(7, {"ann": 3})
    assert one.news(7, MANY) == {"ann": 5, "bob": 1}
    assert one.news(7, MANY) == {}
    assert two.add(7, {"bob": 1})
    assert one.news(7, MANY) == {"bob": 2}
    assert two.news(7, MANY) == {"ann": 5, "bob": 2}


def test_the_next_gateway_goes_on_with_what_was_counted(tmp_path: Path) -> None:
    before = QuotaFile(tmp_path, "")
    before.add(7, {"ann": 2})
    before.close()
    after = QuotaFile(tmp_path, "")
    after.add(7, {"ann": 1})
    assert after.news(7, MANY) == {"ann": 3}


def test_of_many_clients_those_are_told_that_have_used_most(tmp_path: Path) -> None:
    file = QuotaFile(tmp_path, "")
    file.add(7, {"ann": 1, "bob": 3, "cid": 2})
    assert file.news(7, 2) == {"bob": 3, "cid": 2}


def test_another_day_begins_with_nothing_and_what_comes_late_of_the_day_before_is_dropped(tmp_path: Path) -> None:
    file, late = QuotaFile(tmp_path, ""), QuotaFile(tmp_path, "")
    file.add(7, {"ann": 2})
    assert file.news(7, MANY) == {"ann": 2}
    file.add(8, {"bob": 1})
    assert late.add(7, {"ann": 1})
    assert (file.news(7, MANY), file.news(8, MANY)) == ({}, {"bob": 1})


def test_a_clock_that_was_wrong_by_days_stops_nothing(tmp_path: Path) -> None:
    file = QuotaFile(tmp_path, "")
    file.add(9_000, {"ann": 2})
    file.add(7, {"ann": 1})
    assert file.news(7, MANY) == {"ann": 1}


def test_clients_at_the_bound_are_all_counted_and_past_it_those_begin_anew_who_have_used_least(tmp_path: Path) -> None:
    file = QuotaFile(tmp_path, "", most_rows=20)
    file.add(7, {f"c{number}": number + 1 for number in range(20)})
    assert len(file.news(7, MANY)) == 20
    file.add(7, {"late": 5})
    reader = QuotaFile(tmp_path, "")
    assert sorted(reader.news(7, MANY)) == sorted(["late", *(f"c{number}" for number in range(3, 20))])
    assert file.news(7, MANY) == {"late": 5}


def test_nothing_used_writes_nothing(tmp_path: Path) -> None:
    file, other = QuotaFile(tmp_path, ""), QuotaFile(tmp_path, "")
    file.add(7, {"ann": 1})
    other.news(7, MANY)
    assert file.add(8, {})
    assert QuotaFile(tmp_path, "").news(7, MANY) == {"ann": 1}


def test_a_broken_file_is_moved_aside_and_what_it_has_missed_is_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    file = QuotaFile(tmp_path, "")
    for _ in range(5):
        file.add(7, {"ann": 1})
    assert file.news(7, MANY) == {"ann": 5}
    (tmp_path / FILE_NAME).unlink()
    assert not file.add(7, {"ann": 2})
    assert file.news(7, MANY) == {}
    assert file.add(7, {"ann": 2})
    assert file.news(7, MANY) == {"ann": 2}  # although its revision is lower than what was read of the file before


def test_without_a_disk_nothing_is_known_and_nothing_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    file = QuotaFile(folder, "")
    assert not file.add(7, {"ann": 1})
    assert file.news(7, MANY) == {}


def test_what_other_nodes_have_counted_is_added_and_what_they_said_before_counts_no_more(tmp_path: Path) -> None:
    cell, member = QuotaFile(tmp_path, "a"), QuotaFile(tmp_path, "a")
    cell.add(7, {"ann": 1})
    for said in (2, 5, 2):
        member.take(7, "b", {"ann": said})
    member.take(7, "c", {"ann": 10, "bob": 1})
    member.take(6, "c", {"ann": 99})
    assert cell.news(7, MANY) == {"ann": 16, "bob": 1}
    member.take(7, "b", {"ann": 5})
    assert cell.news(7, MANY) == {}


def test_a_node_tells_what_it_has_counted_itself_first_all_then_what_has_changed(tmp_path: Path) -> None:
    cell, member = QuotaFile(tmp_path, "a"), QuotaFile(tmp_path, "a")
    cell.add(7, {"ann": 1, "bob": 2})
    member.take(7, "b", {"ann": 5, "cid": 1})
    revision, counts = member.own(7, 0)
    assert counts == {"ann": 1, "bob": 2}
    assert member.own(7, revision) == (revision, {})
    cell.add(7, {"bob": 1})
    assert member.own(7, revision)[1] == {"bob": 3}
    assert member.own(8, 0)[1] == {}
