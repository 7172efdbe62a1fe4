"""The image: its steps are carried out in a clean root; what they leave serves read-only, as nobody's user and as process 1."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mcp_gateway.config.version import VERSION
from tests.config.image_root import can_build, image_of, inside, instructions
from tests.doubles.ports import free_port
from tests.end_to_end.running_gateway import wait_until

TOP = Path(__file__).parents[2]
DOCKERFILE = TOP / "config" / "Dockerfile"


def test_the_linter_finds_nothing_in_the_steps() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_everything_that_is_copied_is_in_the_context() -> None:
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {
        source
        for each in instructions(DOCKERFILE.read_text())
        if each.word == "COPY" and not each.flags
        for source in each.rest.split()[:-1]
    }
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert all((TOP / source).exists() for source in copied)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process, int]]:
    """(who waits for process 1 of what was started from the image, process 1, port)"""
    if not can_build():
        pytest.skip("a root of its own takes mount namespaces, which need root here")
    work = tmp_path_factory.mktemp("image")
    port = free_port()
    image = image_of(DOCKERFILE, TOP, work)
    image.environment |= {"MCP_GATEWAY__GATEWAY__PORT": str(port), "MCP_GATEWAY__GATEWAY__HOST": "127.0.0.1"}
    health = [word.replace("4000", str(port)) for word in image.health]
    serve = inside(image, "$0", [*image.entry, *image.command])
    start = [
        "mount -t tmpfs none $root/tmp",
        *(line for volume in image.volumes for line in _mounted(f"$root{volume}", f"{work}{volume}")),
        "mount -o remount,ro $root",
        f"(until {inside(image, '$root', health)} 2>/dev/null; do sleep 0.2; done; echo healthy >&2) &",
        f"exec unshare --pid --fork --kill-child sh -c {shlex.quote(f'mount -t proc proc $0/proc && exec {serve}')} $root",
    ]
    with (work.parent / "image.log").open("w+") as log:
        script = "\n".join(["set -e", *image.script, *start])
        launcher = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:

            def is_well() -> bool:
                text = Path(log.name).read_text()
                assert launcher.poll() is None, text
                return "healthy" in text and "listening on" in text

            wait_until(is_well, 110, "a healthy container")
            first = next(each for each in psutil.Process(launcher.pid).children(recursive=True) if _pid_inside(each.pid) == 1)
            yield launcher, first, port
            assert "Traceback" not in Path(log.name).read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait()


def _mounted(place: str, storage: str) -> list[str]:
    """A fresh volume: it begins as what the image has there, as Docker's do."""
    return [
        f"mkdir -p {storage} && cp -a {place}/. {storage}",
        f"chown --reference={place} {storage} && chmod --reference={place} {storage}",
        f"mount --bind {storage} {place}",
    ]


def _pid_inside(pid: int) -> int:
    """What a process is called in the innermost of its namespaces."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^NSpid:.*\s(\d+)$", status, re.MULTILINE)[0])


@pytest.mark.timeout(240)
def test_it_serves_without_rights_on_a_root_that_nobody_writes_and_ends_in_order_as_process_1(
    container: tuple[subprocess.Popen[bytes], psutil.Process, int],
) -> None:
    launcher, first, port = container
    assert {(each.uids().real, each.gids().real) for each in (first, *first.children(recursive=True))} == {(10001, 10001)}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        assert f'"version":"{VERSION}"'.encode() in answer.read()
    root = Path(f"/proc/{first.pid}/root")
    assert oct((root / "var/lib/mcp-gateway").stat().st_mode & 0o777) == "0o700"
    assert (root / "var/lib/mcp-gateway/state").is_dir()
    with pytest.raises(OSError, match="Read-only"):
        (root / "opt/mcp-gateway/new").touch()
    # SIGTERM is what `docker stop` sends: everything drains, and process 1 says 0
    everybody = [first, *first.children(recursive=True)]
    first.send_signal(signal.SIGTERM)
    wait_until(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in everybody), 30, "its end")
    assert launcher.wait(10) == 0
