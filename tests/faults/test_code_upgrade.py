"""New code under a running gateway: its cells take it in one after the other, and clients are served all along."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.doubles.calling_client import CallingClient
from tests.doubles.ports import free_port

ROOT = Path(__file__).parents[2]
PACKAGES = ("actors", "config", "scripts", "transports")
NEW = "99.0.0"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The gateway as it is installed somewhere: files that can be replaced under it."""
    package = tmp_path / "site" / "mcp_gateway"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    if (ROOT / "__init__.py").exists():
        shutil.copy(ROOT / "__init__.py", package)
    return package


def run(installed: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mcp_gateway.scripts.command_line", *arguments],
        env={**os.environ, "PYTHONPATH": str(installed.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=installed.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def serving(installed: Path) -> Iterator[tuple[str, list[str], psutil.Process]]:
    """(address, options by which commands find it, launcher) of a node of two cells."""
    folder = installed.parents[1]
    config = folder / "gateway.toml"
    where = ["--state-dir", str(folder / "state"), "--admin-port", str(free_port())]
    config.write_text('[gateway]\ncells = 2\n[[backends]]\nname = "demo"\nprefix = ""\nbuiltin = "demo"\n')
    gateway = run(installed, "serve", "--config", str(config), "--port", "0", *where)
    try:
        assert gateway.stdout is not None
        said = ""
        while not said.startswith("mcp-gateway listening on "):
            said = gateway.stdout.readline()
            assert said, "it ended before it served"
        yield said.split()[-1], where, psutil.Process(gateway.pid)
    finally:
        gateway.terminate()
        try:
            assert gateway.wait(20) == 0
        finally:
            gateway.kill()


def command(installed: Path, *arguments: str) -> tuple[int, str]:
    with run(installed, *arguments) as process:
        said, _ = process.communicate(timeout=100)
        return process.returncode, said


def versions(url: str) -> set[str]:
    """Those that cells say they run; a connection each, which the kernel deals out among them."""
    found = set()
    for _ in range(24):
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            found.add(json.load(answer)["version"])
    return found


def fork_servers(gateway: psutil.Process) -> list[psutil.Process]:
    return [each for each in gateway.children(recursive=True) if each.cmdline()[:1] == ["mcp-gateway: fork-server"]]


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def replace_version(installed: Path) -> None:
    (installed / "config" / "version.py").write_text(f'VERSION = "{NEW}"\n')


def test_cells_take_in_new_code_while_calls_go_on(installed: Path) -> None:
    async def upgrade_under_load(url: str, where: list[str]) -> set[str]:
        clients = [await CallingClient(url, era).open() for era in ("legacy", "modern", "legacy", "modern")]
        stop = asyncio.Event()
        calling = [asyncio.create_task(client.keep_calling(stop)) for client in clients]
        exit_code, said = await asyncio.to_thread(command, installed, "upgrade", *where)
        assert (exit_code, "cell/1 restarted" in said) == (0, True), said
        stop.set()
        await asyncio.gather(*calling)
        for client in clients:
            await client.close()
        return {each.outcome for client in clients for each in client.ended}

    with serving(installed) as (url, where, gateway):
        old = versions(url)
        assert NEW not in old
        replace_version(installed)
        assert versions(url) == old  # nobody has read it
        assert asyncio.run(upgrade_under_load(url, where)) == {"ok"}
        assert versions(url) == {NEW}
        # What has loaded the code is what cells are forked from, so that they share its memory, and any that comes after them.
        (fork_server,) = fork_servers(gateway)
        cells = fork_server.children()
        assert len(cells) == 2
        cells[0].kill()
        until(lambda: len(fork_server.children()) == 2 and cells[0] not in fork_server.children())
        until(lambda: versions(url) == {NEW})


def test_code_that_cannot_be_loaded_is_refused_and_nothing_restarts(installed: Path) -> None:
    with serving(installed) as (url, where, gateway):
        old = versions(url)
        replace_version(installed)
        (installed / "actors" / "cell" / "cell.py").write_text("half of a file that is be(")
        exit_code, said = command(installed, "upgrade", *where)
        assert exit_code != 0
        assert "cannot be loaded" in said
        assert fork_servers(gateway) == []
        assert versions(url) == old


def test_code_that_the_supervisor_would_not_understand_is_refused_and_nothing_restarts(installed: Path) -> None:
    with serving(installed) as (url, where, _):
        old = versions(url)
        replace_version(installed)
        messages = installed / "actors" / "messages" / "node.py"
        messages.write_text(messages.read_text() + "\nANOTHER = 1\n")
        exit_code, said = command(installed, "upgrade", *where)
        assert exit_code != 0
        assert "start the gateway anew" in said
        assert versions(url) == old
