"""The number of the settings that a node has taken last is known after a restart, and a damaged file stands in nobody's way."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.storage.taken_settings import FILE_NAME, keep_taken_number, taken_number


def test_the_number_that_was_kept_last_is_read(tmp_path: Path) -> None:
    assert taken_number(tmp_path) == 0
    for number in (3, 7):
        keep_taken_number(tmp_path, number)
        assert taken_number(tmp_path) == number
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"7", b"[]", b"{}", b'{"number": "7"}', b'{"number": true}', b'{"number": null}']
)
def test_what_is_no_number_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert taken_number(tmp_path) == 0


def test_without_a_directory_nothing_is_kept_and_that_is_an_error(tmp_path: Path) -> None:
    assert taken_number(tmp_path / "none") == 0
    with pytest.raises(FileNotFoundError):
        keep_taken_number(tmp_path / "none", 1)
