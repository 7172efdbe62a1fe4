"""Who has lost access, as a gateway that starts again finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.node.kept_revocations import (
    FILE_NAME,
    RevocationsUnreadableError,
    keep_revocations,
    with_kept_revocations,
)
from mcp_gateway.config.identity_settings import LogOut, Revocations
from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.config.settings import Settings

LOGGED_OUT = LogOut(issuer="https://id.example", subject="bob", session="s", issued_ms=7, token_id="t")
SOME = Revocations(subjects=("alice", "team-*"), fingerprints=("0" * 32,), log_outs=(LOGGED_OUT,))


def settings_in(path: Path) -> Settings:
    return settings_from_mapping({"gateway": {"state_dir": str(path)}, "backends": [{"name": "d", "builtin": "demo"}]}, "test")


def test_what_was_kept_comes_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    assert with_kept_revocations(settings_in(tmp_path)).revocations == Revocations()
    keep_revocations(tmp_path, SOME)
    assert with_kept_revocations(settings_in(tmp_path)).revocations == SOME
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    keep_revocations(tmp_path, Revocations())
    assert with_kept_revocations(settings_in(tmp_path)).revocations == Revocations()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"subjects": 1}', b'{"else": []}', b'{"fingerprints": ["x"]}', b'{"log_outs": [{}]}', b"\xff"]
)
def test_a_file_that_cannot_be_understood_is_no_empty_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(RevocationsUnreadableError, match=FILE_NAME):
        with_kept_revocations(settings_in(tmp_path))


def test_without_a_state_directory_nobody_is_known() -> None:
    settings = settings_from_mapping({"gateway": {"state_dir": ""}, "backends": [{"name": "d", "builtin": "demo"}]}, "test")
    assert with_kept_revocations(settings) is settings
