"""`logs`: what is shown of a kept log, and what a follower sees."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mcp_gateway.scripts.commands.log_reader import LogFollower, text_of
from mcp_gateway.transports.telemetry.kept_log import FILE_NAME, OLDER_NAME, kept_lines


def write(folder: Path, *lines: dict[str, Any], name: str = FILE_NAME) -> None:
    with (folder / name).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def everything(_: object) -> bool:
    return True


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
