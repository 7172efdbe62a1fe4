"""`mcp-gateway audit verify`: a whole trail, and each way in which it can be broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcp_gateway.actors.storage.audit_file import FILE_NAME, AuditFile
from mcp_gateway.scripts.command_line import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AuditFile(tmp_path, 1e9, 10**9, print).append([{"time_ms": 0, "subject": f"s{index}"} for index in range(5)], 0.0)
    return tmp_path


def verify(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["audit", "verify", "--state-dir", str(folder), *words])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_whole_trail_is_told_with_its_head(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = verify(folder, capsys)
    found = re.fullmatch(r"entries 1 to 5 follow each other; head ([0-9a-f]{64})\n", said)
    assert code == 0
    assert found is not None
    AuditFile(folder, 1e9, 10**9, print).append([{"time_ms": 0}], 0.0)
    assert verify(folder, capsys, "--head", found[1])[0] == 0


def test_a_line_that_was_changed_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / FILE_NAME
    path.write_bytes(path.read_bytes().replace(b'"s2"', b'"s9"'))
    code, said = verify(folder, capsys)
    assert (code, f"{FILE_NAME}:4: entry 4 does not follow the line before it" in said) == (1, True)


def test_a_line_that_was_taken_out_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / FILE_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    code, said = verify(folder, capsys)
    assert (code, f"{FILE_NAME}:3: is entry 4, where 3 was to come" in said) == (1, True)


def test_a_trail_that_was_cut_no_longer_holds_its_head(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / FILE_NAME
    head = verify(folder, capsys)[1].split()[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert verify(folder, capsys)[0] == 0
    code, said = verify(folder, capsys, "--head", head)
    assert (code, "was cut, or written anew" in said) == (1, True)


def test_what_was_dropped_at_the_beginning_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / FILE_NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:]))
    code, said = verify(folder, capsys)
    assert (code, "older ones than 3 are gone" in said) == (0, True)


def test_a_line_that_is_not_finished_is_not_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / FILE_NAME).open("ab") as file:
        file.write(b'{"number":6')
    code, said = verify(folder, capsys)
    assert (code, f"{FILE_NAME}:6: a line that was not finished" in said, "entries 1 to 5" in said) == (0, True, True)


def test_where_nothing_is_there_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(tmp_path, capsys) == (0, "the audit trail is empty\n")
    code, said = verify(tmp_path / "none", capsys)
    assert (code, "there is no state directory" in said) == (2, True)
