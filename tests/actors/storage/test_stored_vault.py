"""The vault on disk: secret, the same for all cells, and worth nothing without its key."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.actors.storage.stored_vault import FILE_NAME, KEY_FILE_NAME, MOST_FLOWS, StoredVault
from mcp_gateway.transports.ports.credential_vault import EntryId, EntryKind, VaultFailed

ANN = EntryId(EntryKind.GRANT, "files\niss ann", "files", "iss ann")
BOB = EntryId(EntryKind.GRANT, "files\niss bob", "files", "iss bob")
FLOW = EntryId(EntryKind.FLOW, "f00", "")
NOW_MS = 1_000_000


def test_what_is_kept_is_read_by_every_cell_and_after_a_restart(tmp_path: Path) -> None:
    first, second = StoredVault(tmp_path), StoredVault(tmp_path)
    first.write(ANN, b"s3cret", NOW_MS)
    assert second.read(ANN, NOW_MS) == b"s3cret"
    assert second.read(BOB, NOW_MS) is None
    second.delete(ANN)
    assert first.read(ANN, NOW_MS) is None
    first.write(ANN, b"new", NOW_MS)
    first.close()
    assert StoredVault(tmp_path).read(ANN, NOW_MS) == b"new"


def test_nobody_else_may_read_the_files_and_nothing_in_them_is_clear(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    vault.write(ANN, b"s3cret", NOW_MS)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert b"s3cret" not in path.read_bytes()


def test_without_its_key_the_vault_is_worth_nothing(tmp_path: Path) -> None:
    StoredVault(tmp_path).write(ANN, b"s3cret", NOW_MS)
    (tmp_path / KEY_FILE_NAME).unlink()
    vault = StoredVault(tmp_path)
    assert vault.read(ANN, NOW_MS) is None
    vault.write(ANN, b"new", NOW_MS)
    assert vault.read(ANN, NOW_MS) == b"new"


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    vault.write(ANN, b"s3cret", NOW_MS)
    (tmp_path / KEY_FILE_NAME).chmod(0o644)
    with pytest.raises(VaultFailed, match="others may read"):
        StoredVault(tmp_path).read(ANN, NOW_MS)


def test_an_entry_in_the_place_of_another_is_no_entry(tmp_path: Path) -> None:
    """Who can write the file, and has no key, cannot give one user what is another's."""
    vault = StoredVault(tmp_path)
    vault.write(ANN, b"ann", NOW_MS)
    vault.write(BOB, b"bob", NOW_MS)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        content = connection.execute("SELECT content FROM entries WHERE principal = 'iss ann'").fetchone()[0]
        connection.execute("UPDATE entries SET content = ? WHERE principal = 'iss bob'", (content,))
        connection.execute("UPDATE entries SET principal = 'iss eve' WHERE principal = 'iss ann'")
    assert vault.read(BOB, NOW_MS) is None
    assert vault.read(EntryId(EntryKind.GRANT, ANN.name, "files", "iss eve"), NOW_MS) is None


def test_what_has_an_end_is_read_before_it_and_taken_once(tmp_path: Path) -> None:
    vault, other = StoredVault(tmp_path), StoredVault(tmp_path)
    vault.write(FLOW, b"flow", NOW_MS, NOW_MS + 10)
    assert vault.read(FLOW, NOW_MS + 9) == b"flow"
    assert vault.read(FLOW, NOW_MS + 10) is None
    assert [each.take(FLOW, NOW_MS) for each in (other, vault, other)] == [b"flow", None, None]


def test_the_flow_that_began_first_makes_room(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    flows = [EntryId(EntryKind.FLOW, f"{number:05}", "") for number in range(MOST_FLOWS + 1)]
    for number, flow in enumerate(flows):
        vault.write(flow, b"flow", NOW_MS + number, NOW_MS + 10**6)
    assert vault.read(flows[0], NOW_MS) is None
    assert vault.read(flows[1], NOW_MS) == vault.read(flows[-1], NOW_MS) == b"flow"


def test_one_cell_of_all_may_renew_an_entry_until_its_time_is_over_or_it_is_written(tmp_path: Path) -> None:
    vault, other = StoredVault(tmp_path), StoredVault(tmp_path)
    assert not vault.lease(ANN, NOW_MS + 10, NOW_MS)
    vault.write(ANN, b"old", NOW_MS)
    assert vault.lease(ANN, NOW_MS + 10, NOW_MS)
    assert not other.lease(ANN, NOW_MS + 19, NOW_MS + 9)
    assert other.lease(ANN, NOW_MS + 20, NOW_MS + 10)
    other.write(ANN, b"new", NOW_MS)
    assert vault.lease(ANN, NOW_MS + 10, NOW_MS)
    vault.release(ANN)
    assert other.lease(ANN, NOW_MS + 10, NOW_MS)


def test_people_see_whose_they_are_and_delete_them(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    for entry in (ANN, BOB, FLOW, EntryId(EntryKind.CLIENT, "x", "files"), EntryId(EntryKind.GRANT, "y", "mail", "iss ann")):
        vault.write(entry, b"s3cret", NOW_MS)
    shown = [(each.kind.value, each.backend, each.principal) for each in vault.kept()]
    assert shown == [
        ("client", "files", ""),
        ("grant", "files", "iss ann"),
        ("grant", "files", "iss bob"),
        ("grant", "mail", "iss ann"),
    ]
    assert "s3cret" not in repr(vault.kept())
    assert vault.delete_of("files", "iss ann") == 1
    assert vault.take(FLOW, NOW_MS) is None, "who is deleted does not come back by a consent under way"
    assert vault.delete_of(principal="iss ann") == 1
    assert vault.delete_of("files") == 2
    assert vault.kept() == []


def test_a_user_who_is_denied_leaves_nothing_behind_and_nothing_under_way(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    registered = EntryId(EntryKind.CLIENT, "x", "files")
    for entry in (ANN, BOB, FLOW, registered):
        vault.write(entry, b"s3cret", NOW_MS)
    assert vault.principals() == {"iss ann", "iss bob"}
    vault.forget("iss ann")
    assert [vault.read(entry, NOW_MS) for entry in (ANN, FLOW)] == [None, None]
    assert [vault.read(entry, NOW_MS) for entry in (BOB, registered)] == [b"s3cret"] * 2


def test_a_new_key_seals_everything_and_the_old_one_opens_nothing(tmp_path: Path) -> None:
    vault, other = StoredVault(tmp_path), StoredVault(tmp_path)
    vault.write(ANN, b"ann", NOW_MS)
    assert other.read(ANN, NOW_MS) == b"ann"
    old = (tmp_path / KEY_FILE_NAME).read_bytes()
    assert vault.rotate() == 1
    new = (tmp_path / KEY_FILE_NAME).read_bytes()
    assert (len(old), len(new)) == (32, 32)
    assert old != new
    assert other.read(ANN, NOW_MS) == b"ann"
    other.write(BOB, b"bob", NOW_MS)
    assert vault.read(BOB, NOW_MS) == b"bob"
    (tmp_path / KEY_FILE_NAME).write_bytes(old)
    assert StoredVault(tmp_path).read(ANN, NOW_MS) is None


def _write_many(path: Path, opened: Any) -> None:
    vault = StoredVault(path)
    opened.set()
    for number in range(200):
        vault.write(EntryId(EntryKind.GRANT, f"{number}", "files", "iss ann"), b"ann", NOW_MS)


def test_nothing_is_lost_that_another_process_writes_while_the_key_changes(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    opened = spawn.Event()
    writer = spawn.Process(target=_write_many, args=(tmp_path, opened))
    writer.start()
    assert opened.wait(30)
    while writer.is_alive():
        vault.rotate()
        writer.join(0.01)  # and let it write
    assert len(vault.kept()) == 200
    for number in range(200):
        assert vault.read(EntryId(EntryKind.GRANT, f"{number}", "files", "iss ann"), NOW_MS) == b"ann"


def test_a_file_that_is_broken_is_moved_aside_and_users_are_asked_anew(tmp_path: Path) -> None:
    vault = StoredVault(tmp_path)
    vault.write(ANN, b"ann", NOW_MS)
    vault.close()
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    vault = StoredVault(tmp_path)
    assert vault.read(ANN, NOW_MS) is None
    vault.write(ANN, b"again", NOW_MS)
    assert vault.read(ANN, NOW_MS) == b"again"
