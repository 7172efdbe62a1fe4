"""Runs the official TypeScript client as a process and reads what it saw."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

_HERE = Path(__file__).parent
_INSTALL_TIMEOUT_S = 120.0
_SCENARIO_TIMEOUT_S = 60.0


def run_node_client(
    url: str,
    mode: Literal["legacy", "modern", "auto"],
    *,
    server: Literal["everything", "demo"] = "everything",
    prefix: str = "",
) -> dict[str, Any]:
    """Walk through one server, see `client_scenario.mjs`; returns the JSON object it prints, `errors` among its keys.

    prefix: what the gateway puts before tool and prompt names.
    """
    node = shutil.which("node")
    assert node, "Node.js 20 or newer is needed for the TypeScript client"
    install_once()
    command = [node, str(_HERE / "client_scenario.mjs"), url, f"--{mode}", "--server", server, "--prefix", prefix]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=_SCENARIO_TIMEOUT_S, check=False)
    assert finished.stdout, finished.stderr
    seen: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])  # the SDK warns on standard output
    return seen


def install_once() -> None:
    """Install the pinned packages unless they are there already."""
    installed, lock = _HERE / "node_modules" / ".package-lock.json", _HERE / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm")
    assert npm, "npm is needed to install the TypeScript client"
    command = [npm, "ci", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=_HERE, check=True, timeout=_INSTALL_TIMEOUT_S, capture_output=True)
