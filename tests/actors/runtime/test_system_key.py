"""The key file of a node: made once, for its owner alone, and refused where others may use it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from mcp_gateway.actors.runtime.system_key import KEY_FILE_NAME, KeyFileUnsafe, load_or_create_key, load_secrets


def test_the_key_is_made_once_with_access_for_the_owner_only(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "state")
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / "state" / KEY_FILE_NAME).stat().st_mode) == 0o600
    assert load_or_create_key(tmp_path / "state") == key
    assert [each.name for each in (tmp_path / "state").iterdir()] == [KEY_FILE_NAME]


def test_all_who_make_the_key_at_the_same_time_get_the_same_one(tmp_path: Path) -> None:
    for attempt in range(20):
        keys: list[bytes] = []
        barrier = threading.Barrier(8)

        def race(directory: Path, keys: list[bytes] = keys, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            keys.append(load_or_create_key(directory))

        threads = [threading.Thread(target=race, args=(tmp_path / str(attempt),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys) == 8
        assert len(set(keys)) == 1


@pytest.mark.parametrize(("size", "sizes"), [(32, [32]), (63, [63]), (64, [32, 32]), (128, [32] * 4), (160, [160])])
def test_two_to_four_keys_in_one_file_are_told_from_one_secret_of_another_length(
    tmp_path: Path, size: int, sizes: list[int]
) -> None:
    path = tmp_path / "cluster.key"
    path.write_bytes(os.urandom(size))
    path.chmod(0o600)
    assert [len(each) for each in load_secrets(path)] == sizes
    assert b"".join(load_secrets(path)) == path.read_bytes()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o620])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_key(tmp_path)
    (tmp_path / KEY_FILE_NAME).chmod(mode)
    with pytest.raises(KeyFileUnsafe, match=f"others may read or write it .mode {mode:04o}"):
        load_or_create_key(tmp_path)


def test_a_key_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_or_create_key(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(KeyFileUnsafe, match="belongs to user id"):
        load_or_create_key(tmp_path)


def test_a_key_file_that_is_a_link_a_pipe_or_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE_NAME
    path.symlink_to("/dev/zero")
    with pytest.raises(KeyFileUnsafe, match="plain file"):
        load_or_create_key(tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileUnsafe, match="plain file"):
        load_or_create_key(tmp_path)
    path.unlink()
    path.touch(0o600)
    with pytest.raises(KeyFileUnsafe, match="not a key of 32 bytes"):
        load_or_create_key(tmp_path)
