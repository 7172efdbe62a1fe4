"""A first configuration is written with what is there already, can be served as it is, and never takes the place of another."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_gateway.config.loader import load_settings
from mcp_gateway.scripts.commands.init_command import found_files
from tests.doubles.gateway_process import run_command

DESKTOP = {
    "mcpServers": {"My Files": {"command": "npx", "args": ["-y", "server-files"]}, "web": {"url": "http://127.0.0.1:1/mcp"}}
}


def test_without_servers_the_demo_is_served(tmp_path: Path) -> None:
    output = tmp_path / "gateway.toml"
    done = run_command("init", "--output", str(output), "--port", "4321")
    assert done.returncode == 0, done.stderr
    settings = load_settings(output)
    assert (settings.gateway.port, [backend.builtin for backend in settings.backends]) == (4321, ["demo"])
    assert f"serve --config {output}" in done.stdout
    assert output.stat().st_mode & 0o777 == 0o600


def test_servers_of_a_desktop_program_are_taken_over(tmp_path: Path) -> None:
    desktop, output = tmp_path / "mcp.json", tmp_path / "gateway.toml"
    desktop.write_text(json.dumps(DESKTOP))
    done = run_command("init", "--output", str(output), "--from", str(desktop))
    assert done.returncode == 0, done.stderr
    assert "2 servers of yours" in done.stdout
    backends = load_settings(output).backends
    assert {backend.title or backend.name for backend in backends} == {"My Files", "web"}


def test_what_is_commented_out_shows_defaults_that_hold(tmp_path: Path) -> None:
    output = tmp_path / "gateway.toml"
    run_command("init", "--output", str(output))
    plain = load_settings(output)
    lines = output.read_text().splitlines()
    head = lines.index("[gateway]")
    shown = [line.removeprefix("# ") if line.startswith("# ") and index < head + 8 else line for index, line in enumerate(lines)]
    output.write_text("\n".join(shown[head:]))
    assert load_settings(output) == plain


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "/nowhere/mcp.json"], "/nowhere/mcp.json"),
        (["--port", "70000"], "gateway.port"),
        (["--host", "no host"], "gateway.host"),
        (["--output", "/nowhere/gateway.toml"], "/nowhere/gateway.toml"),
    ],
)
def test_what_cannot_be_done_is_told_and_nothing_is_written(arguments: list[str], text: str, tmp_path: Path) -> None:
    output = tmp_path / "gateway.toml"
    done = run_command("init", "--output", str(output), *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert not output.exists()


def test_a_file_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    output = tmp_path / "gateway.toml"
    output.write_text("# mine\n")
    done = run_command("init", "--output", str(output))
    assert (done.returncode, output.read_text()) == (2, "# mine\n")


def test_elsewhere_than_at_a_terminal_it_is_told_which_files_could_be_taken(tmp_path: Path) -> None:
    (tmp_path / ".mcp.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "mcp_gateway.scripts.command_line", "init"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"--from {tmp_path / '.mcp.json'}" in done.stdout


def test_files_of_the_project_come_before_those_of_the_user(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    for path in (here / ".vscode" / "mcp.json", home / ".cursor" / "mcp.json"):
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert found_files(here, home) == [here / ".vscode" / "mcp.json", home / ".cursor" / "mcp.json"]


def test_a_person_at_a_terminal_is_asked_which_files_to_take(tmp_path: Path) -> None:
    for name in (".mcp.json", "mcp.json"):
        servers = {f"of {name}": {"command": "x"}}
        (tmp_path / name).write_text(json.dumps({"mcpServers": servers}))
    leader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mcp_gateway.scripts.command_line", "init"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path / "home")},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    try:
        os.write(leader, b"n\n\n")  # not the first, but the second
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 0
    assert "1 server of yours" in output
    assert [backend.title or backend.name for backend in load_settings(tmp_path / "gateway.toml").backends] == ["of mcp.json"]
