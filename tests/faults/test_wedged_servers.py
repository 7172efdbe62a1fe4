"""Servers that hang, with calls in them, slow nobody down: not the recovery of a cell or of an actor, and not other servers."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartGateway
from tests.doubles.recording_backend import start_recording_backend
from tests.doubles.sdk_server import SdkServer, start_sdk_server
from tests.end_to_end.raw_http import ask_modern, tool_call
from tests.end_to_end.running_gateway import RunningGateway, wait_until

_ROOT = Path(__file__).parents[2]
_MORE_S = 2.5
"""By how much a recovery may differ from another one on a busy machine; the wait for a server's end would be longer."""

Wedge = tuple[RunningGateway, SdkServer]


@pytest.fixture(scope="module")
def node(start_gateway: StartGateway) -> Iterator[Wedge]:
    stdio = [sys.executable, "-m", "tests.doubles.everything_server", "--transport", "stdio", "--name", "pipe"]
    with start_sdk_server() as web, start_recording_backend() as well:
        backends: list[dict[str, Any]] = [
            {"name": "well", "replicas": [well.url]},
            {"name": "web", "replicas": [web.url]},
            {"name": "pipe", "command": stdio, "cwd": str(_ROOT)},
        ]
        options = {"gateway": {"health_check_interval": 1.0, "drain_timeout": 1.0}, "expects_errors": True}
        with start_gateway("two cells", backends, **options) as gateway:
            yield gateway, web


@contextmanager
def wedged(gateway: RunningGateway, web: SdkServer) -> Iterator[None]:
    """Both servers hang within the block, the one that the gateway runs as well, and each has calls."""
    for name in ("web__whoami", "pipe__whoami"):
        wait_until(lambda name=name: ask_modern(gateway.endpoint(), tool_call(name)).status == 200, 20, name)  # type: ignore[misc]
    web.pause()
    stopped = []
    for process in gateway.processes():
        with suppress(psutil.Error):
            if "everything_server" in " ".join(process.cmdline()):
                process.suspend()
                stopped.append(process)
    assert stopped

    def call(name: str) -> None:
        with suppress(OSError, HTTPException, ValueError):
            ask_modern(gateway.endpoint(), tool_call(name), timeout_s=60)

    for name in ("web__whoami", "pipe__whoami") * 8:
        threading.Thread(target=call, args=(name,), daemon=True).start()
    leased = {"state": "leased"}
    wait_until(lambda: gateway.metric_sum("mcp_gateway_pool_connections", **leased) >= 16, 10, "the calls are under way")
    try:
        yield
    finally:
        web.resume()
        for process in stopped:
            with suppress(psutil.Error):
                process.resume()


def tree(gateway: RunningGateway) -> dict[str, tuple[int, int]]:
    """{name of a child: (pid, incarnation)}"""
    rows, found = list(gateway.status()["tree"]), {}
    while rows:
        row = rows.pop()
        found[row["name"]] = (row["pid"], row["incarnation"])
        rows += row["children"]
    return found


def recovery_s(gateway: RunningGateway, victim: str) -> float:
    """Seconds from the end of a process, or the crash of an actor, until the tree is whole again and every cell serves."""
    before = tree(gateway)
    began_s = time.monotonic()
    if victim.count("/") == 1:
        os.kill(before[victim][0], signal.SIGKILL)
    else:
        exit_code, output = gateway.admin("kill", victim)
        assert exit_code == 0, output

    def is_whole() -> bool:
        with suppress(AssertionError):
            now = tree(gateway)
            return now.keys() >= before.keys() and now[victim] != before[victim]
        return False

    wait_until(is_whole, 30, f"{victim} is back")
    for _ in range(6):
        assert ask_modern(gateway.endpoint(), tool_call("well__work"), timeout_s=10).status == 200
    return time.monotonic() - began_s


@pytest.mark.parametrize("victim", ["cell/0", "cell/1/connection-pool", "cell/0/router", "cell/1/event-bus"])
def test_servers_that_hang_slow_no_recovery_down(node: Wedge, victim: str) -> None:
    gateway, web = node
    usual_s = recovery_s(gateway, victim)
    with wedged(gateway, web):
        assert recovery_s(gateway, victim) < usual_s + _MORE_S
