"""Sessions on disk: what lives, what is dropped, and what a broken file costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_gateway.actors.storage import sqlite_file
from mcp_gateway.actors.storage.session_journal import FILE_NAME, SessionJournal
from mcp_gateway.actors.storage.sqlite_file import UNREADABLE_SUFFIX
from mcp_gateway.transports.protocol.sealed.session import SessionFacts, SessionState, UpstreamSession
from tests.doubles.full_disk import file_size_limit

MANY = 1_000
UNREADABLE_NAME = FILE_NAME + UNREADABLE_SUFFIX


def session(key: str, **fields: object) -> SessionState:
    upstreams = (UpstreamSession("files", "files#0", "id", "2025-11-25"),)
    return SessionState(key, "", "2025-11-25", "ada", b"{}", upstreams, **fields)  # type: ignore[arg-type]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SessionJournal]:
    opened = SessionJournal(tmp_path, now_ms=1_000)
    yield opened
    opened.close()


def test_what_one_cell_has_written_another_reads_and_so_does_the_next_gateway(tmp_path: Path) -> None:
    one, two = SessionJournal(tmp_path, 1_000), SessionJournal(tmp_path, 2_000)
    facts = SessionFacts("warning", (("files", "a:b"),))
    assert one.insert(session("a"), 1_000, MANY) == []
    two.replace(session("a", facts=facts))
    assert one.read("a", 0) == session("a", facts=facts)
    for each in (one, two):
        each.close()
    again = SessionJournal(tmp_path, 9_000)
    assert again.read("a", 0) == session("a", facts=facts)
    assert (again.count(), again.began_ms) == (1, 1_000)
    again.close()


def test_a_session_that_was_ended_or_is_unknown_is_not_found_and_not_changed(journal: SessionJournal) -> None:
    journal.insert(session("a"), 1_000, MANY)
    journal.delete("a")
    journal.replace(session("a"))
    journal.touch({"a": 2_000, "b": 2_000})
    assert journal.read("a", 0) is None
    assert journal.count() == 0


def test_a_session_at_the_limit_makes_nobody_leave_and_one_past_it_the_longest_unused(journal: SessionJournal) -> None:
    journal.insert(session("a"), 1_000, 2)
    assert journal.insert(session("b"), 1_001, 2) == []
    journal.touch({"a": 1_002})
    assert journal.insert(session("c"), 1_002, 2) == [session("b")]
    assert journal.insert(session("d"), 1_002, 1) != []
    assert journal.read("d", 0) == session("d")  # the newcomer itself stays, however new the others are


def test_a_holder_at_its_share_drives_out_nobody_and_past_it_its_own_longest_unused(journal: SessionJournal) -> None:
    journal.insert(session("other", holder="b"), 1_000, MANY, 2)
    for number in range(2):
        assert journal.insert(session(f"a{number}", holder="a"), 2_000 + number, MANY, 2) == []
    journal.touch({"a0": 3_000})
    assert journal.insert(session("a2", holder="a"), 2_500, MANY, 2) == [session("a1", holder="a")]
    assert journal.insert(session("a0", holder="a"), 4_000, MANY, 2) == []  # known already: it takes no more than before
    assert (journal.read("other", 0), journal.count()) == (session("other", holder="b"), 3)


def test_where_there_is_no_room_who_holds_most_makes_some(journal: SessionJournal) -> None:
    for key, holder in (("b", "b"), ("a1", "a"), ("a2", "a")):
        journal.insert(session(key, holder=holder), 1_000 + journal.count(), MANY)
    assert journal.insert(session("c", holder="c"), 2_000, 3, 3) == [session("a1", holder="a")]
    assert journal.insert(session("d", holder="d"), 2_000, 3, 3) == [session("b", holder="b")], "the oldest: nobody holds two"


def test_the_counts_follow_all_that_ends_sessions_and_outlive_the_process(tmp_path: Path) -> None:
    journal = SessionJournal(tmp_path, 1_000)
    for number in range(6):
        journal.insert(session(str(number), holder="ab"[number % 2]), 1_000 + number, MANY)
    journal.delete("0")
    journal.delete("unknown")
    assert len(journal.expire(1_003)) == 2
    journal.close()
    again = SessionJournal(tmp_path, 2_000)
    assert again.count() == 3
    with again._file.transaction(writes=False) as connection:
        held = dict(connection.execute("SELECT holder, held FROM holders").fetchall())
        counted = dict(connection.execute("SELECT holder, count(*) FROM sessions GROUP BY holder").fetchall())
    assert held == counted == {"a": 1, "b": 2}
    assert [each.key for each in again.insert(session("new"), 3_000, 1)] == ["3", "4", "5"]
    assert again.count() == 1
    again.close()


def test_what_a_cell_has_no_room_for_is_not_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_S", 0.01)
    journal, other = SessionJournal(tmp_path, 1_000), SessionJournal(tmp_path, 1_000)
    with other._file.transaction():
        for key in "ab":
            journal.insert(session(key), 1_000, MANY)
        journal.forget("a")
        journal.forget("unknown")
    assert journal.catch_up(2_000)
    assert (other.read("a", 0), other.read("b", 0)) == (None, session("b"))
    for each in (journal, other):
        each.close()


def test_idle_sessions_expire_once_and_used_ones_stay(journal: SessionJournal) -> None:
    journal.insert(session("idle"), 1_000, MANY)
    journal.insert(session("used"), 1_000, MANY)
    journal.touch({"used": 5_000})
    journal.touch({"used": 4_000})  # a cell whose note comes late
    assert journal.read("idle", 1_001) is None
    assert journal.expire(1_000) == []
    assert journal.expire(5_000) == [session("idle")]
    assert journal.expire(5_000) == []
    assert journal.read("used", 5_000) == session("used")


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 4_096])
def test_a_file_that_cannot_be_read_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    journal = SessionJournal(tmp_path, 7_000)
    assert (tmp_path / UNREADABLE_NAME).read_bytes() == content
    assert (journal.is_durable, journal.began_ms) == (True, 7_000)
    journal.insert(session("a"), 7_000, MANY)
    assert journal.read("a", 0) == session("a")
    journal.close()


def test_a_disk_that_fails_later_costs_no_more_than_durability(tmp_path: Path) -> None:
    journal = SessionJournal(tmp_path, 1_000)
    journal.insert(session("a"), 1_000, MANY)
    other = SessionJournal(tmp_path, 1_000)
    with other._file.transaction() as connection:
        connection.execute("DROP TABLE sessions")
    assert journal.insert(session("b"), 1_000, MANY) == []
    assert not journal.is_durable
    assert journal.read("a", 0) is None
    other.close()


def test_after_a_full_disk_the_journal_has_what_it_missed_and_nothing_that_was_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    journal, other = SessionJournal(tmp_path, 1_000), SessionJournal(tmp_path, 1_000)
    for key in ("used", "ended"):
        journal.insert(session(key), 1_000, MANY)
    with file_size_limit(1_000):
        journal.insert(session("opened"), 2_000, MANY)
        assert not journal.is_durable
        facts = SessionFacts("warning")
        assert not journal.replace(session("used", facts=facts))
        assert journal.replace(session("opened", facts=facts))
        assert not journal.touch({"used": 2_000})
        journal.delete("ended")
        journal.insert(session("short"), 2_000, MANY)
        journal.delete("short")
        assert not journal.catch_up(2_500)
    assert journal.catch_up(3_000)
    assert journal.is_durable
    assert [other.read(key, 0) for key in ("used", "ended", "short")] == [session("used"), None, None]
    assert other.read("opened", 3_000) == session("opened", facts=facts)
    assert journal.replace(session("used", facts=facts))
    assert journal.touch({"used": 4_000})
    assert other.read("used", 4_000) == session("used", facts=facts)
    for each in (journal, other):
        each.close()


def test_what_a_busy_file_has_missed_is_written_when_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "_BUSY_S", 0.01)
    journal, other = SessionJournal(tmp_path, 1_000), SessionJournal(tmp_path, 1_000)
    journal.insert(session("a"), 1_000, MANY)
    with other._file.transaction():
        journal.insert(session("b"), 1_000, MANY)
        journal.delete("a")
        assert not journal.catch_up(1_500)
    assert journal.is_durable
    assert journal.catch_up(2_000)
    assert (other.read("a", 0), other.read("b", 0)) == (None, session("b"))
    for each in (journal, other):
        each.close()


@pytest.mark.parametrize("path", [None, "missing"])
def test_without_a_directory_nothing_is_kept_and_nothing_fails(tmp_path: Path, path: str | None) -> None:
    journal = SessionJournal(None if path is None else tmp_path / path, 1_000)
    assert journal.insert(session("a"), 1_000, MANY) == []
    journal.replace(session("a"))
    journal.touch({"a": 2_000})
    journal.delete("a")
    assert (journal.read("a", 0), journal.expire(9_000), journal.count(), journal.is_durable) == (None, [], 0, False)
    journal.close()
