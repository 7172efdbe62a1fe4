"""`mcp-gateway approve`, over a state directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcp_gateway.actors.storage.pin_file import PinFile
from mcp_gateway.scripts.command_line import main


@pytest.fixture
def state(tmp_path: Path) -> Path:
    pins = PinFile(tmp_path)
    for backend in ("files", "mail"):
        pins.take(backend, {"read": {"description": "1"}, "list": {"description": "1"}})
    pins.take("files", {"read": {"description": "2"}, "list": {"description": "1"}})
    pins.take("mail", {"read": {"description": "2"}})
    pins.close()
    return tmp_path


def approve(state: Path, *options: str) -> int:
    return main(["approve", *options, "--state-dir", str(state)])


def test_what_has_changed_is_listed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert approve(state) == 0
    assert capsys.readouterr().out == "files/read: description\nmail/read: description\n"
    assert approve(state, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0] == {"backend": "files", "tool": "read", "changed": ["description"]}


@pytest.mark.parametrize("name", ["files/read", "files__read"])
def test_one_is_approved_by_its_backend_or_its_name_at_the_merged_server(
    state: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert approve(state, name) == 0
    assert capsys.readouterr().out == "files/read is approved\n"
    approve(state)
    assert capsys.readouterr().out == "mail/read: description\n"


@pytest.mark.parametrize("name", ["files-cat", "files/read"])
def test_one_is_approved_by_the_name_that_clients_see(state: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Renamed, behind a prefix of the operator's choice."""
    config = state / "gateway.toml"
    config.write_text(
        '[[backends]]\nname = "files"\nseparator = "-"\nbuiltin = "demo"\n[backends.tools]\nrename = { read = "cat" }\n'
    )
    assert approve(state, name, "--config", str(config)) == 0
    assert capsys.readouterr().out == "files/read is approved\n"


def test_all_are_approved_at_once(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert approve(state, "--all") == 0
    capsys.readouterr()
    for options in ((), ("--all",)):
        assert approve(state, *options) == 0
        assert capsys.readouterr().out == "every tool is what was approved\n"


@pytest.mark.parametrize(("name", "said"), [("read", "files/read, mail/read"), ("list", "no tool of that name")])
def test_what_is_several_or_none_is_refused(state: Path, name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert approve(state, name) == 2
    assert said in capsys.readouterr().err


def test_a_directory_without_pins_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert approve(tmp_path) == 1
    assert "keeps no pins" in capsys.readouterr().err
