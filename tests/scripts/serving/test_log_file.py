"""The log in the state directory: bounded, whole lines, whoever writes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_gateway.config.settings import LoggingSettings
from mcp_gateway.scripts.serving.log_file import LogFile
from mcp_gateway.scripts.serving.log_lines import keep_log
from mcp_gateway.transports.telemetry.kept_log import FILE_NAME, OLDER_NAME


def say(handler: logging.Handler, text: str) -> None:
    handler.handle(logging.LogRecord("test", logging.INFO, "", 0, text, None, None))


def test_two_parts_are_kept_and_the_oldest_lines_go(tmp_path: Path) -> None:
    handler = LogFile(tmp_path, 2_000)
    for number in range(100):
        say(handler, f"{number:099d}")
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2_000
    text = (tmp_path / OLDER_NAME).read_text() + (tmp_path / FILE_NAME).read_text()
    assert [int(line) for line in text.splitlines()] == list(range(80, 100)), "exactly so many lines have room"
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    handler.close()


def test_a_line_longer_than_a_part_is_written_all_the_same(tmp_path: Path) -> None:
    handler = LogFile(tmp_path, 100)
    for letter in "abc":
        say(handler, letter * 99)
    assert (tmp_path / FILE_NAME).read_text() == "c" * 99 + "\n"
    assert (tmp_path / OLDER_NAME).read_text() == "b" * 99 + "\n"
    handler.close()


def test_processes_that_write_at_once_lose_no_line_and_mix_none(tmp_path: Path) -> None:
    code = f"""
import logging, sys
from pathlib import Path
from mcp_gateway.scripts.serving.log_file import LogFile
handler = LogFile(Path({str(tmp_path)!r}), 200_000)
for number in range(500):
    handler.handle(logging.LogRecord("t", 20, "", 0, sys.argv[1] * 99, None, None))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, letter]) for letter in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = ((tmp_path / OLDER_NAME).read_text() + (tmp_path / FILE_NAME).read_text()).splitlines()
    assert len(lines) == 1_500
    assert {(len(line), len(set(line))) for line in lines} == {(99, 1)}


def test_who_still_has_the_old_part_goes_over_to_the_new_one(tmp_path: Path) -> None:
    one, other = LogFile(tmp_path, 400), LogFile(tmp_path, 400)
    say(one, "a" * 99)
    say(other, "b" * 99)
    say(one, "c" * 99)
    say(other, "d" * 99)
    assert (tmp_path / FILE_NAME).read_text() == "c" * 99 + "\n" + "d" * 99 + "\n"
    os.unlink(tmp_path / FILE_NAME)
    say(one, "after somebody removed it")
    assert (tmp_path / FILE_NAME).read_text() == "after somebody removed it\n"
    one.close()
    other.close()


def test_where_the_file_cannot_be_written_the_others_log_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogFile(tmp_path / "missing", 400)
    say(handler, "nobody reads this")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("state", "keep_bytes", "kept"), [(True, 1_000, 1), (True, 0, 0), (False, 1_000, 0)])
def test_the_log_is_kept_where_there_is_a_state_directory_and_a_bound(
    state: bool, keep_bytes: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.RootLogger(logging.INFO)
    monkeypatch.setattr(logging, "root", root)
    keep_log(tmp_path if state else None, LoggingSettings(keep_bytes=keep_bytes))
    assert len(root.handlers) == kept
    root.info("password=hunter2 %s", "x")
    assert ("hunter2" in "".join(path.read_text() for path in tmp_path.iterdir())) is False
