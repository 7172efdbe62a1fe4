"""The audit trail on disk: one chain whoever writes, whoever dies in between, whatever the disk does."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcp_gateway.actors.storage import audit_file
from mcp_gateway.actors.storage.audit_chain import ChainCheck
from mcp_gateway.actors.storage.audit_file import FILE_NAME, AuditFile, older_parts, opened_parts
from tests.doubles.full_disk import file_size_limit

DAY_S = 86_400.0


def trail(folder: Path, said: list[str] | None = None, *, max_bytes: int = 10**9) -> AuditFile:
    return AuditFile(folder, 10 * DAY_S, max_bytes, ([] if said is None else said).append)


def entry(now_s: float = 0.0, **fields: object) -> dict[str, object]:
    return {"time_ms": int(now_s * 1000), "subject": "ann", **fields}


def checked(folder: Path) -> ChainCheck:
    """The whole trail. Raises: AssertionError where it breaks."""
    check = ChainCheck()
    for path, file, _ in opened_parts(folder):
        with file:
            for line in file:
                assert check.take(line.removesuffix(b"\n")) is None, f"{path}: {line!r}"
    return check


def test_several_writers_make_one_chain(tmp_path: Path) -> None:
    writers = [trail(tmp_path) for _ in range(3)]
    for turn in range(30):
        writers[turn * 7 % 3].append([entry(by=turn)] * (turn % 3 + 1), 0.0)
    assert checked(tmp_path).end.number == sum(turn % 3 + 1 for turn in range(30))


def test_it_is_for_its_user_alone(tmp_path: Path) -> None:
    trail(tmp_path).append([entry()], 0.0)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_not_finished_is_cut_off_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = trail(tmp_path), trail(tmp_path, said)
    first.append([entry(), entry()], 0.0)
    with (tmp_path / FILE_NAME).open("ab") as file:
        file.write(b'{"number":3,"subj')
    second.append([entry()], 0.0)
    first.append([entry()], 0.0)
    assert checked(tmp_path).end.number == 4
    assert said == [f"{FILE_NAME}: a line that was not finished was cut off, 17 bytes"]


def test_a_first_line_that_was_not_finished_is_none(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"number":1')
    trail(tmp_path).append([entry()], 0.0)
    assert checked(tmp_path).end.number == 1


def test_a_full_disk_takes_all_entries_or_none(tmp_path: Path) -> None:
    file = trail(tmp_path)
    file.append([entry()], 0.0)
    with file_size_limit(400), pytest.raises(OSError, match="File too large"):
        file.append([entry()] * 10, 0.0)
    assert checked(tmp_path).end.number == 1
    file.append([entry()], 0.0)
    assert checked(tmp_path).end.number == 2


def test_an_entry_that_json_has_no_form_for_is_left_out_and_those_around_it_are_one_chain(tmp_path: Path) -> None:
    file = trail(tmp_path)
    assert file.append([entry(), entry() | {"name": "\ud800"}, entry() | {"name": object()}, entry()], 0.0) == 2
    assert file.append([entry() | {"name": "\udfff"}], 0.0) == 1
    assert file.append([entry()], 0.0) == 0
    assert checked(tmp_path).end.number == 3


def test_a_part_of_a_day_is_followed_by_the_next_and_the_chain_goes_through_both(tmp_path: Path) -> None:
    file, other = trail(tmp_path), trail(tmp_path)
    now_s = time.time()
    file.append([entry(now_s), entry(now_s)], now_s)
    other.append([entry(now_s + DAY_S)], now_s + DAY_S - 1)
    assert older_parts(tmp_path) == []
    other.append([entry(now_s + DAY_S + 1)], now_s + DAY_S + 1)
    file.append([entry(now_s + DAY_S + 2)], now_s + DAY_S + 2)
    assert [each.name for each in older_parts(tmp_path)] == ["audit-000000000000001.jsonl"]
    assert checked(tmp_path).end.number == 5
    fresh = trail(tmp_path)
    (tmp_path / FILE_NAME).unlink()  # a part that was begun and not written yet
    fresh.append([entry(now_s)], now_s)
    assert checked(tmp_path).end.number == 4


def test_a_large_part_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "_LARGEST_PART_BYTES", 1_000)
    file = trail(tmp_path)
    for _ in range(20):
        file.append([entry()], 0.0)
    sizes = [part.stat().st_size for part in older_parts(tmp_path)]
    assert len(sizes) > 1
    assert all(1_000 <= size < 1_200 for size in sizes)
    assert checked(tmp_path).end.number == 20


def test_old_parts_are_dropped_after_their_time_and_when_there_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "_LARGEST_PART_BYTES", 1_000)
    now_s = time.time()
    file = trail(tmp_path, max_bytes=3_500)
    for _ in range(60):
        file.append([entry(now_s)], now_s)
    parts = older_parts(tmp_path)
    assert 2 <= len(parts) <= 3
    assert checked(tmp_path).first_number > 1
    os.utime(parts[0], (now_s - 11 * DAY_S, now_s - 11 * DAY_S))
    for _ in range(9):
        file.append([entry(now_s)], now_s)
    assert parts[0] not in older_parts(tmp_path)


def test_what_is_no_trail_shows_as_a_break_and_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else\n")
    trail(tmp_path).append([entry()], 0.0)
    with pytest.raises(AssertionError, match="something else"):
        checked(tmp_path)


_WRITER = """
import os, sys
from pathlib import Path
from mcp_gateway.actors.storage.audit_file import AuditFile
file = AuditFile(Path(sys.argv[1]), 1e9, 10**9, print)
while True:
    file.append([{"time_ms": 0, "by": os.getpid(), "subject": "x" * 300}] * 20, 0.0)
"""


def test_writers_that_are_killed_leave_a_chain_that_goes_on(tmp_path: Path) -> None:
    """`kill -9` at any moment, of three processes that write as fast as they can."""
    for _ in range(3):
        writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)]) for _ in range(3)]
        wanted, seen, give_up_s = {b'"by":%d,' % writer.pid for writer in writers}, set[bytes](), time.monotonic() + 30
        while seen != wanted:  # all of them write by now, and so at once
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
            with contextlib.suppress(FileNotFoundError), (tmp_path / FILE_NAME).open("rb") as file:
                file.seek(-min(200_000, (tmp_path / FILE_NAME).stat().st_size), os.SEEK_END)
                tail = file.read()
                seen |= {each for each in wanted if each in tail}
        time.sleep(0.2)
        for writer in writers:
            writer.kill()
            writer.wait()
    trail(tmp_path).append([entry()], 0.0)
    assert checked(tmp_path).end.number > 100
