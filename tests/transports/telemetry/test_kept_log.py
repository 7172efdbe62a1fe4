"""What is read of a kept log: its newest lines, and those that somebody looks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.transports.telemetry.kept_log import FILE_NAME, OLDER_NAME, kept_lines, line_filter


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


@pytest.mark.parametrize(
    ("last_bytes", "texts"), [(1_000, ["1", "2", "3"]), (29, ["2", "3"]), (28, ["3"]), (15, ["3"]), (14, [])]
)
def test_no_more_than_the_end_is_read_where_that_is_enough(last_bytes: int, texts: list[str], tmp_path: Path) -> None:
    """Each line has 14 bytes. The first is known to be whole by the end of the one before it."""
    write(tmp_path, *({"text": each} for each in "123"))
    assert [line["text"] for line in kept_lines(tmp_path, everything, None, last_bytes=last_bytes)] == texts
