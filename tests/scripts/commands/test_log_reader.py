"""`logs`: what is shown of a kept log, and what a follower sees."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.scripts.commands.log_reader import LogFollower, kept_lines, line_filter, text_of
from mcp_gateway.scripts.serving.log_file import FILE_NAME, OLDER_NAME


def write(folder: Path, *lines: dict[str, Any], name: str = FILE_NAME) -> None:
    with (folder / name).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def everything(_: object) -> bool:
    return True


def test_the_newest_lines_of_both_parts_are_shown_oldest_first(tmp_path: Path) -> None:
    write(tmp_path, {"text": "1"}, {"text": "2"}, name=OLDER_NAME)
    write(tmp_path, {"text": "3"}, {"text": "4"})
    assert [line["text"] for line in kept_lines(tmp_path, everything, 3)] == ["2", "3", "4"]
    assert len(kept_lines(tmp_path, everything, None)) == 4
    assert kept_lines(tmp_path, everything, 0) == []
    with pytest.raises(FileNotFoundError):
        kept_lines(tmp_path / "nowhere", everything, None)


def test_what_a_full_disk_has_left_of_a_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b'{"text": "1"}\n{"tex{"text": "2"}\n\xff\n[1]\n{"text": "3"}\n')
    assert [line["text"] for line in kept_lines(tmp_path, everything, None)] == ["1", "3"]


@pytest.mark.parametrize(
    ("request_id", "level", "texts"),
    [
        (None, "debug", ["a", "b", "c", "d"]),
        (None, "warning", ["b", "d"]),
        ("cell/0#7", "debug", ["a", "b"]),
        ("cell/0#7", "error", []),
        ("abc", "debug", ["c"]),
        ("cell/0", "debug", []),
    ],
)
def test_lines_are_chosen_by_what_they_are_about_and_how_urgent_they_are(
    request_id: str | None, level: str, texts: list[str], tmp_path: Path
) -> None:
    write(
        tmp_path,
        {"text": "a", "level": "info", "request_id": "cell/0#7"},
        {"text": "b", "level": "warning", "request_id": "cell/0#7"},
        {"text": "c", "level": "info", "trace_id": "abc"},
        {"text": "d", "level": "critical"},
    )
    assert [line["text"] for line in kept_lines(tmp_path, line_filter(request_id, level), None)] == texts


def test_a_follower_sees_each_line_once_whole_and_through_a_part_put_away_and_a_restart(tmp_path: Path) -> None:
    # 1. Nothing is there yet.
    early = LogFollower(tmp_path)
    assert (early.read(), early.began_bytes) == ([], 0)
    # 2. What was there before is not news.
    write(tmp_path, {"text": "1"})
    follower = LogFollower(tmp_path)
    assert [line["text"] for line in kept_lines(tmp_path, everything, None, follower.began_bytes)] == ["1"]
    # 3. A line shows when it is whole.
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"text": ')
        file.flush()
        assert follower.read() == []
        file.write('"2"}\n')
    assert [line["text"] for line in follower.read()] == ["2"]
    assert len(kept_lines(tmp_path, everything, None, follower.began_bytes)) == 1, "what the follower shows is not shown twice"
    # 4. The part is put away while one process still writes to it.
    with (tmp_path / FILE_NAME).open("a") as late:
        os.replace(tmp_path / FILE_NAME, tmp_path / OLDER_NAME)
        write(tmp_path, {"text": "4"})
        late.write('{"text": "3"}\n')
    found = [line["text"] for _ in range(3) for line in follower.read()]
    assert found == ["3", "4"]
    assert [line["text"] for line in early.read()] == ["4"]


def test_a_line_for_people_harms_no_terminal() -> None:
    line = {"time": "2026-07-28T09:00:00.000+00:00", "level": "error", "process": 1, "actor": "cell/0/edge", "text": "a\x1b[2J"}
    shown = text_of({**line, "backend": "x\n", "error": "Traceback\nValueError"})
    head, *rest = shown.split("\n")
    assert head.endswith(r"error   cell/0/edge: a\x1b[2J  backend=x\x0a") or "\x1b" not in shown
    assert "\x1b" not in shown
    assert rest == ["Traceback", "ValueError"]
