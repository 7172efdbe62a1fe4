"""What tools were when they were approved, on disk and without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.storage.pin_file import FILE_NAME, ChangedTool, PinFile, PinsUnavailable

OLD, NEW = {"t": {"description": "1", "inputSchema": "2"}}, {"t": {"description": "9", "inputSchema": "2"}}


def test_every_cell_and_the_next_process_know_what_one_has_seen(tmp_path: Path) -> None:
    one, other = PinFile(tmp_path), PinFile(tmp_path)
    assert not one.take("b", OLD).changed
    assert other.take("b", NEW).news == {"t"}
    assert (one.is_changed("b", "t"), one.is_changed("c", "t"), one.take("b", NEW).news) == (True, False, frozenset())
    one.close()
    other.close()
    again = PinFile(tmp_path)
    assert again.changed() == [ChangedTool("b", "t", ("description",))]
    again.approve("b", "t")
    assert (again.changed(), again.is_changed("b", "t"), again.take("b", NEW).changed) == ([], False, frozenset())
    assert again.take("b", OLD).changed == {"t"}
    again.close()


def test_without_a_disk_it_is_known_as_long_as_the_process_lives() -> None:
    pins = PinFile(None)
    assert not pins.take("b", OLD).changed
    assert pins.take("b", NEW).changed == {"t"}
    assert (pins.is_changed("b", "t"), pins.is_changed("b", "u")) == (True, False)
    with pytest.raises(PinsUnavailable):
        pins.approve("b", "t")


def test_a_file_that_is_lost_while_it_is_open_loses_nothing_that_this_process_knows(tmp_path: Path) -> None:
    pins = PinFile(tmp_path)
    pins.take("b", OLD)
    (tmp_path / FILE_NAME).unlink()
    assert pins.take("b", NEW).changed == {"t"}
    assert pins.is_changed("b", "t")
    pins.close()
