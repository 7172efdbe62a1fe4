"""Tasks on disk: what is found after a restart, and how much of it there may be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.storage.task_journal import FILE_NAME, JournalLimits, TaskJournal
from mcp_gateway.transports.protocol.eras.tasks import KeptTask, TaskStatus

BEGUN = KeptTask(created_ms=1_000, ttl_ms=60_000)
DONE = attrs.evolve(BEGUN, ended_ms=2_000, status=TaskStatus.COMPLETED, result=b'{"content":[]}')
LIMITS = JournalLimits(tasks=8, result_bytes=80, largest_share=0.5)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[TaskJournal]:
    opened = TaskJournal(tmp_path, LIMITS)
    yield opened
    opened.close()


def begin(journal: TaskJournal, name: str, holder: str = "a", *, created_ms: int = 1_000, ttl_ms: int = 60_000) -> None:
    journal.begin(name, holder, KeptTask(created_ms=created_ms, ttl_ms=ttl_ms))


def finish(journal: TaskJournal, name: str, holder: str = "a", size: int = 1) -> None:
    journal.finish(name, holder, attrs.evolve(DONE, result=b"1" * size))


def held(journal: TaskJournal, names: str) -> str:
    return "".join(name for name in names if journal.find(name) is not None)


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
def test_what_one_cell_has_written_another_reads_and_so_does_the_next_gateway(tmp_path: Path, status: TaskStatus) -> None:
    one, two = TaskJournal(tmp_path), TaskJournal(tmp_path)
    over = attrs.evolve(DONE, status=status, error=b"{}")
    one.begin("t", "a", BEGUN)
    assert two.find("t") == BEGUN
    one.finish("t", "a", over)
    one.begin("running", "a", BEGUN)
    for each in (one, two):
        each.close()
    again = TaskJournal(tmp_path)
    assert (again.find("t"), again.find("running"), again.find("unknown")) == (over, BEGUN, None)
    again.close()


def test_a_task_that_was_forgotten_stays_so(journal: TaskJournal) -> None:
    begin(journal, "t")
    journal.forget("t")
    finish(journal, "t")
    assert journal.find("t") is None


def test_what_is_past_its_time_goes_when_another_begins(journal: TaskJournal) -> None:
    begin(journal, "a", created_ms=1_000, ttl_ms=500)
    begin(journal, "b", created_ms=1_500)
    assert held(journal, "ab") == "ab"
    begin(journal, "c", created_ms=1_501)
    assert held(journal, "abc") == "bc"


def test_a_holder_at_its_share_loses_nothing_and_past_it_its_own_oldest(journal: TaskJournal) -> None:
    begin(journal, "z", "b", created_ms=0)
    for number, name in enumerate("abcd"):
        begin(journal, name, created_ms=number)
    assert held(journal, "abcdz") == "abcdz"
    begin(journal, "e", created_ms=9)
    assert held(journal, "abcdez") == "bcdez"
    for name in "bcde":
        finish(journal, name, size=10)
    assert held(journal, "bcdez") == "bcdez"
    begin(journal, "f", created_ms=10)
    finish(journal, "f", size=11)
    assert held(journal, "bcdefz") == "defz"


def test_the_oldest_of_all_make_room_where_all_have_too_much(journal: TaskJournal) -> None:
    for number, name in enumerate("abcdefgh"):
        begin(journal, name, "xyz"[number % 3], created_ms=number)
    assert held(journal, "abcdefgh") == "abcdefgh"
    begin(journal, "i", "w", created_ms=9)
    assert held(journal, "abcdefghi") == "bcdefghi"
    for number, name in enumerate("bcdefghi"):
        finish(journal, name, "xyzw"[number % 4], size=10)
    assert held(journal, "bcdefghi") == "bcdefghi"
    finish(journal, "i", "w", size=11)
    assert held(journal, "bcdefghi") == "cdefghi"


def test_without_a_directory_nothing_is_kept_and_nothing_fails() -> None:
    journal = TaskJournal(None)
    begin(journal, "t")
    finish(journal, "t")
    assert journal.find("t") is None
    journal.forget("t")
    journal.close()


def test_a_broken_file_is_moved_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"noise" * 1_000)
    journal = TaskJournal(tmp_path)
    begin(journal, "t")
    assert journal.find("t") is not None
    journal.close()


@pytest.mark.parametrize(("column", "value"), [("status", "odd"), ("result", b"no JSON"), ("error", "text"), ("ttl_ms", "soon")])
def test_a_row_that_somebody_has_changed_is_no_task(tmp_path: Path, column: str, value: object) -> None:
    journal = TaskJournal(tmp_path)
    begin(journal, "t")
    journal.finish("t", "a", DONE)
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        other.execute(f"UPDATE tasks SET {column} = ?", (value,))
    assert journal.find("t") is None
    journal.close()


_steps = st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.sampled_from("xyz"), st.integers(0, 60)), max_size=40)


@given(_steps)
def test_the_file_never_holds_more_than_it_may(steps: list[tuple[bool, int, str, int]]) -> None:
    journal = TaskJournal(None, LIMITS)
    connection = _in_memory(journal)
    for at, (begins, number, holder, size) in enumerate(steps):
        if begins:
            begin(journal, f"{holder}{number}", holder, created_ms=at)
        else:
            finish(journal, f"{holder}{number}", holder, size)
        rows = connection.execute("SELECT holder, count(*), sum(size) FROM tasks GROUP BY holder").fetchall()
        assert sum(count for _, count, _ in rows) <= LIMITS.tasks
        assert sum(size for *_, size in rows) <= LIMITS.result_bytes
        assert all(count <= 4 and size <= 40 for _, count, size in rows)
    connection.close()


def _in_memory(journal: TaskJournal) -> sqlite3.Connection:
    """Give the journal a database without a file: many short lives cost no disk."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in journal._file._tables:
        connection.execute(statement)

    @contextmanager
    def transaction(*, writes: bool = True) -> Iterator[sqlite3.Connection]:
        yield connection

    journal._file._connection = connection
    journal._file.transaction = transaction  # type: ignore[method-assign]
    return connection
