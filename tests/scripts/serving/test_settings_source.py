"""Where a run's settings come from, and that the same can be read again later and elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.serving.settings_source import SettingsSource


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with both kinds of file."""
    (tmp_path / "g.toml").write_text('[gateway]\nport = 5000\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n')
    (tmp_path / "m.json").write_text('{"mcpServers": {"one": {"command": "python"}, "two": {"url": "http://127.0.0.1:1/mcp"}}}')
    (tmp_path / "project" / ".vscode").mkdir(parents=True)
    (tmp_path / "project" / ".mcp.json").write_text('{"mcpServers": {"three": {"command": "python"}}}')
    (tmp_path / "project" / ".vscode" / "mcp.json").write_text('{"servers": {"one": {"command": "${workspaceFolder}/x"}}}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_it_is_the_demo() -> None:
    assert SettingsSource().load() == Settings.demo()
    assert not SettingsSource(port=1).names_a_file


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"config": "g.toml"}, ["demo"]),
        ({"mcp_json": ["m.json"]}, ["one", "two"]),
        ({"config": "g.toml", "mcp_json": ["m.json"]}, ["demo", "one", "two"]),
        ({"mcp_json": ["m.json", "project"]}, ["one", "two", "three", "one-7a6c86"]),
    ],
)
def test_files_are_put_together_and_found_again_from_another_folder(
    files: dict[str, str], names: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SettingsSource(**files, host="127.0.0.2", admin_port=7)  # type: ignore[arg-type]
    settings = source.load()
    assert [backend.name for backend in settings.backends] == names
    assert source.names_a_file
    kept = json.loads(json.dumps(source.to_keep()))
    monkeypatch.chdir("/")
    assert SettingsSource.kept(kept).load() == settings


def test_options_stand_over_the_file(folder: Path) -> None:
    settings = SettingsSource(config="g.toml", host="127.0.0.2", port=0, state_dir="", admin_port=7, is_embedded=True).load()
    assert (settings.gateway.host, settings.gateway.port, settings.gateway.state_dir) == ("127.0.0.2", 0, "")
    assert (settings.actor_system.admin_port, settings.actor_system.is_embedded) == (7, True)
    assert SettingsSource(config="g.toml").load().gateway.port == 5000


def test_without_a_file_of_another_program_nothing_of_what_reads_them_is_loaded(folder: Path) -> None:
    """Start-up is measured."""
    code = f"""
import sys
from mcp_gateway.scripts.serving.settings_source import SettingsSource
SettingsSource(config={str(folder / "g.toml")!r}).load()
print(sorted({{"json5", "shlex", "mcp_gateway.config.desktop_loader"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_variables_stand_between_the_file_and_the_options_and_are_kept_for_a_reload(folder: Path) -> None:
    variables = {"MCP_GATEWAY__GATEWAY__PORT": "6000", "MCP_GATEWAY__GATEWAY__POOL_SIZE": "7"}
    source = SettingsSource(config="g.toml", port=7000, variables=variables)
    settings = source.load()
    assert (settings.gateway.port, settings.gateway.pool_size) == (7000, 7)
    assert SettingsSource.kept(json.loads(json.dumps(source.to_keep()))).load() == settings
    assert SettingsSource(config="g.toml", variables=variables).load().gateway.port == 6000


def test_backends_of_variables_are_served_beside_those_of_another_program(folder: Path) -> None:
    variables = {"MCP_GATEWAY__BACKENDS__0__NAME": "mine", "MCP_GATEWAY__BACKENDS__0__BUILTIN": "demo"}
    for given, names in ((variables, ["mine", "one", "two"]), ({"MCP_GATEWAY__GATEWAY__PORT": "1"}, ["one", "two"])):
        settings = SettingsSource(mcp_json=["m.json"], variables=given).load()
        assert [backend.name for backend in settings.backends] == names
