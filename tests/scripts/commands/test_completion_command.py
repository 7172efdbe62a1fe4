"""A shell that has sourced what the command prints completes commands and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.gateway_process import run_command

_COMPLETE = """
eval "$(mcp-gateway completion bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<<"$1"
[[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete mcp-gateway
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(line: str) -> set[str]:
    """What a real bash offers after this line."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, "--norc", "-c", _COMPLETE, "bash", line],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {each.strip() for each in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mcp-gateway rest", {"restart"}),
        ("mcp-gateway re", {"reload", "restart", "remove-backend", "resources", "revoke"}),
        ("mcp-gateway restart --rol", {"--rolling"}),
        ("mcp-gateway completion ", {"bash", "zsh", "fish"}),
        ("mcp-gateway serve --mcp", {"--mcp-json"}),
    ],
)
def test_bash_completes(line: str, offered: set[str]) -> None:
    assert completed(line) >= offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_code_that_names_the_command(shell: str) -> None:
    done = run_command("completion", shell)
    assert done.returncode == 0
    assert "mcp-gateway" in done.stdout


def test_a_shell_that_is_not_known_is_refused() -> None:
    assert run_command("completion", "dos").returncode == 2
