"""What both files of the state directory have in common: all or nothing, and a way back from whatever goes wrong."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from mcp_gateway.actors.storage import event_store, session_journal, sqlite_file
from mcp_gateway.actors.storage.event_store import EventStore
from mcp_gateway.actors.storage.session_journal import SessionJournal
from mcp_gateway.actors.storage.sqlite_file import UNREADABLE_SUFFIX, SqliteFile
from tests.doubles.full_disk import file_size_limit

TABLE = "CREATE TABLE IF NOT EXISTS words (word TEXT NOT NULL)"


class Bench:
    """Opens files in one directory as owner or as cells that share it, and keeps what they said."""

    def __init__(self, directory: Path, *, exclusive: bool) -> None:
        self.path = directory / "words.sqlite3"
        self.aside = Path(f"{self.path}{UNREADABLE_SUFFIX}")
        self.said: list[str] = []
        self._exclusive = exclusive
        self._files: list[SqliteFile] = []

    def open(self, version: int = 1) -> SqliteFile:
        file = SqliteFile(self.path, version, (TABLE,), exclusive=self._exclusive, contents="words", say=self._say)
        self._files.append(file)
        file.open(lambda _: None)
        return file

    def _say(self, level: int, text: str) -> None:
        assert level in (logging.WARNING, logging.ERROR)
        self.said.append(text)

    def close(self) -> None:
        for file in self._files:
            file.close()


def write(file: SqliteFile, *words: str) -> None:
    with file.transaction() as connection:
        connection.executemany("INSERT INTO words VALUES (?)", [(word,) for word in words])


def read(file: SqliteFile) -> list[str]:
    with file.transaction(writes=False) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY rowid")]


@contextmanager
def lock_of(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture(params=[True, False], ids=["owned", "shared"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with closing(Bench(tmp_path, exclusive=request.param)) as bench:
        yield bench


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(sqlite_file, "_BUSY_S", 0.01)
    with closing(Bench(tmp_path, exclusive=False)) as bench:
        yield bench


# ---- transactions


@pytest.mark.parametrize("error", [sqlite3.IntegrityError, KeyError])
def test_of_a_transaction_that_fails_nothing_is_kept(bench: Bench, error: type[Exception]) -> None:
    file = bench.open()
    write(file, "one")
    with pytest.raises(error), file.transaction() as connection:
        connection.execute("INSERT INTO words VALUES ('two')")
        raise error("on the way")
    file.close()
    with closing(sqlite3.connect(bench.aside if error is sqlite3.IntegrityError else bench.path)) as connection:
        assert connection.execute("SELECT word FROM words").fetchall() == [("one",)]


def test_without_a_file_a_transaction_says_so(tmp_path: Path) -> None:
    file = SqliteFile(None, 1, (TABLE,), exclusive=True, contents="words", say=lambda _, text: pytest.fail(text))
    file.open(lambda _: None)
    file.mend(lambda _: None)
    assert (file.is_durable, file.is_wanted, file.wants_mending, file.has_failed) == (False, False, False, False)
    with pytest.raises(sqlite3.ProgrammingError), file.transaction():
        pytest.fail("there is nothing to write to")


def test_a_shared_file_that_is_busy_is_one_missed_note(shared: Bench) -> None:
    one, two = shared.open(), shared.open()
    with one.transaction(), pytest.raises(sqlite3.OperationalError):
        write(two, "missed")
    write(two, "written")
    assert read(one) == ["written"]
    assert not two.has_failed


# ---- a full disk


def test_a_file_on_a_full_disk_comes_back_when_there_is_room_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "MEND_INTERVAL_S", 0.0)
    file = bench.open()
    write(file, "one")
    with file_size_limit(100_000):
        with pytest.raises(sqlite3.Error):
            write(file, "x" * 200_000)
        for _ in range(3):
            assert file.wants_mending
            file.mend(lambda connection: connection.execute("INSERT INTO words VALUES (?)", ("x" * 200_000,)))
            assert not file.is_durable
    assert len(bench.said) == 1
    file.mend(lambda connection: connection.execute("INSERT INTO words VALUES ('missed')"))
    assert bench.said[1:] == [f"words are kept in {bench.path} again"]
    write(file, "two")
    assert read(file) == ["one", "missed", "two"]
    assert not bench.aside.exists()


def test_a_failed_file_is_not_tried_again_before_its_time(bench: Bench) -> None:
    file = bench.open()
    with file_size_limit(100_000), pytest.raises(sqlite3.Error):
        write(file, "x" * 200_000)
    assert (file.is_durable, file.wants_mending) == (False, False)


# ---- files that cannot be used


def open_events(directory: Path) -> bool:
    with closing(EventStore(directory, 10, lambda _level, _text: None)) as store:
        return store.is_durable


def open_sessions(directory: Path) -> bool:
    with closing(SessionJournal(directory, 1_000)) as journal:
        return journal.is_durable


@pytest.mark.parametrize(
    ("name", "opens", "version"),
    [(event_store.FILE_NAME, open_events, 2), (session_journal.FILE_NAME, open_sessions, 2)],
    ids=["events", "sessions"],
)
def test_a_file_of_another_version_is_moved_aside_and_a_new_one_begun(
    tmp_path: Path, name: str, opens: Callable[[Path], bool], version: int
) -> None:
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 77")
    assert opens(tmp_path)
    for each, written in ((path, version), (Path(f"{path}{UNREADABLE_SUFFIX}"), 77)):
        with closing(sqlite3.connect(each)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (written,)
    assert opens(tmp_path)


def test_what_is_broken_is_said_and_forgotten_when_all_is_well(bench: Bench) -> None:
    bench.path.write_bytes(b"this is no database" * 100)
    file = bench.open()
    assert (file.is_durable, file.has_failed) == (True, True)
    assert bench.aside.read_bytes().startswith(b"this is no database")
    assert [f"{bench.path} cannot be used" in bench.said[0], f"was moved to {bench.aside}" in bench.said[1]] == [True, True]
    file.close()
    assert not bench.open().has_failed


def test_a_file_that_was_replaced_is_left_for_the_new_one(bench: Bench) -> None:
    file = bench.open()
    write(file, "old")
    for path in bench.path.parent.iterdir():
        path.unlink()
    with pytest.raises(sqlite3.OperationalError):
        write(file, "lost")
    assert file.wants_mending
    file.mend(lambda connection: connection.execute("INSERT INTO words VALUES ('missed')"))
    assert read(file) == ["missed"]


def test_a_cell_that_starts_while_another_moves_a_broken_file_aside_waits_for_the_new_one(tmp_path: Path) -> None:
    with closing(Bench(tmp_path, exclusive=False)) as bench:
        opened: list[SqliteFile] = []
        late = threading.Thread(target=lambda: opened.append(bench.open()))
        with lock_of(tmp_path):  # the broken file is gone, what belongs to it not yet
            late.start()
            late.join(0.1)
            assert not opened
            assert not bench.path.exists()
        late.join(10)
        assert [file.is_durable for file in opened] == [True]


def test_a_cell_that_was_stopped_while_it_opens_its_file_holds_no_other_up(shared: Bench) -> None:
    shared.path.write_bytes(b"this is no database" * 100)
    with lock_of(shared.path.parent):
        assert shared.open().is_durable


def test_cells_that_find_the_same_broken_file_share_the_new_one(tmp_path: Path) -> None:
    for number in range(10):
        (directory := tmp_path / str(number)).mkdir()
        bench = Bench(directory, exclusive=False)
        bench.path.write_bytes(b"this is no database" * 100)
        together = threading.Barrier(4)
        files: list[SqliteFile] = []

        def start(bench: Bench = bench, together: threading.Barrier = together, files: list[SqliteFile] = files) -> None:
            together.wait(10)
            files.append(bench.open())

        cells = [threading.Thread(target=start) for _ in range(4)]
        for cell in cells:
            cell.start()
        for cell in cells:
            cell.join()
        for index, file in enumerate(files):
            with suppress(sqlite3.Error):
                write(file, str(index))
            if not file.is_durable:  # it had opened the file of another cell's first try
                file.mend(lambda _: None)
                write(file, str(index))
        assert [read(file) for file in files] == [["0", "1", "2", "3"]] * 4
        assert bench.aside.read_bytes().startswith(b"this is no database")
        bench.close()


# ---- who may read it


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in directory.iterdir()}


@pytest.mark.parametrize("exclusive", [False, True])
def test_nobody_else_may_read_the_file_or_what_lies_beside_it(exclusive: bool, tmp_path: Path) -> None:
    bench = Bench(tmp_path, exclusive=exclusive)
    before = os.umask(0)
    try:
        write(bench.open(), "a")
        assert set(modes(tmp_path).values()) == {0o600}
        assert "words.sqlite3-wal" in modes(tmp_path)
    finally:
        os.umask(before)
        bench.close()


def test_a_file_that_others_could_read_is_closed_to_them_and_loses_nothing(tmp_path: Path) -> None:
    """With another cell that has it open, and what that one has not yet merged."""
    bench = Bench(tmp_path, exclusive=False)
    try:
        write(bench.open(), "a")
        for path in tmp_path.iterdir():
            path.chmod(0o644)
        assert read(bench.open()) == ["a"]
        assert set(modes(tmp_path).values()) == {0o600}
    finally:
        bench.close()


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    directory = tmp_path / "state"
    directory.mkdir()
    bench = Bench(directory, exclusive=False)
    bench.path.symlink_to(elsewhere)
    try:
        write(bench.open(), "a")
        assert not bench.path.is_symlink()
        assert (elsewhere.read_text(), bench.aside.is_symlink()) == ("kept", True)
    finally:
        bench.close()
