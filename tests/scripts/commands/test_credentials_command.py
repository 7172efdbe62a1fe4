"""`mcp-gateway credentials`: what is kept is shown without what is secret, deleted, and sealed anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_gateway.actors.storage.stored_vault import KEY_FILE_NAME, StoredVault
from mcp_gateway.scripts.command_line import main
from mcp_gateway.transports.ports.credential_vault import EntryId, EntryKind

ENTRIES = (("files", "https://id ann"), ("files", "api-key ann"), ("mail", "https://id bob"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    vault = StoredVault(tmp_path)
    for backend, principal in ENTRIES:
        vault.write(EntryId(EntryKind.GRANT, f"{backend}\n{principal}", backend, principal), b"s3cret", 0)
    vault.write(EntryId(EntryKind.CLIENT, "x", "files"), b"s3cret", 0)
    vault.close()
    return tmp_path


def kept(state: Path) -> list[tuple[str, str]]:
    vault = StoredVault(state)
    try:
        return [(each.backend, each.principal) for each in vault.kept()]
    finally:
        vault.close()


def test_what_is_kept_is_listed_without_what_is_secret(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credentials", "--state-dir", str(state)]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[:3] for line in shown.splitlines()[1:]] == [
        ["files", "registration", "1970-01-01T00:00:00+00:00"],
        ["files", "user", "ann"],
        ["files", "user", "ann"],
        ["mail", "user", "bob"],
    ]
    assert "s3cret" not in shown
    assert main(["credentials", "list", "--json", "--state-dir", str(state)]) == 0
    (*_, last) = json.loads(capsys.readouterr().out)
    assert (last["backend"], last["subject"], last["issuer"]) == ("mail", "bob", "https://id")


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--subject", "ann"], [("files", ""), ("mail", "https://id bob")]),
        (["--subject", "ann", "--issuer", "api-key"], [("files", ""), ("files", "https://id ann"), ("mail", "https://id bob")]),
        (["--subject", "bob", "--backend", "mail"], [("files", ""), ("files", "api-key ann"), ("files", "https://id ann")]),
        (["--backend", "files"], [("mail", "https://id bob")]),
        (["--all"], []),
    ],
)
def test_what_is_named_is_deleted_and_nothing_else(state: Path, options: list[str], left: list[tuple[str, str]]) -> None:
    assert main(["credentials", "delete", "--state-dir", str(state), *options]) == 0
    assert kept(state) == left


def test_nothing_is_deleted_by_omission(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credentials", "delete", "--state-dir", str(state)]) == 2
    assert "say what to delete" in capsys.readouterr().err
    assert main(["credentials", "delete", "--subject", "eve", "--state-dir", str(state)]) == 1
    assert len(kept(state)) == 4


def test_a_new_key_takes_the_place_of_the_old_one(state: Path) -> None:
    before = (state / KEY_FILE_NAME).read_bytes()
    assert main(["credentials", "--state-dir", str(state), "rotate"]) == 0
    assert (state / KEY_FILE_NAME).read_bytes() != before
    backend, principal = ENTRIES[0]
    entry = EntryId(EntryKind.GRANT, f"{backend}\n{principal}", backend, principal)
    assert StoredVault(state).read(entry, 0) == b"s3cret"


def test_a_gateway_that_keeps_none_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["credentials", "--state-dir", str(tmp_path)]) == 1
    assert "keeps no credentials" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
