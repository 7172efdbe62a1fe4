"""`top` of a gateway that runs: once for people and programs, live on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_gateway.scripts.commands.top_command import lines_of
from tests.doubles.gateway_process import GatewayProcess, run_command
from tests.end_to_end.raw_http import ask_modern, tool_call


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path_factory.mktemp("top") / "state", cell_factory=None) as running:
        yield running


@pytest.fixture
def busy(gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """Somebody calls tools meanwhile."""
    is_over = threading.Event()

    def call() -> None:
        while not is_over.wait(0.05):
            ask_modern(f"{gateway.url}/mcp", tool_call("echo", {"message": "hi"}))

    caller = threading.Thread(target=call)
    caller.start()
    yield gateway
    is_over.set()
    caller.join(10)


def options(gateway: GatewayProcess) -> list[str]:
    return ["--state-dir", str(gateway.state_dir), "--admin-port", str(gateway.admin_port), "--interval", "1"]


def test_once_for_programs_and_for_people(busy: GatewayProcess) -> None:
    done = run_command("top", "--once", "--json", *options(busy))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [(row["backend"], row["tool"]) for row in seen["tools"]] == [("demo", "echo")]
    assert seen["requests_per_second"] > 0
    assert [row["backend"] for row in seen["backends"]] == ["demo"]
    assert "clients" in seen
    piped = run_command("top", *options(busy))  # no terminal: as with --once
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "\x1b" not in piped.stdout
    assert "TOOL  BACKEND  CALLS/S  ERRORS" in piped.stdout


def test_on_a_terminal_it_goes_on_until_it_is_interrupted(busy: GatewayProcess) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "top", *options(busy)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}) as looking:
        os.close(theirs)
        text, deadline_s = b"", time.monotonic() + 20
        while text.count(b"requests/s") < 2 and time.monotonic() < deadline_s:
            if select.select([ours], [], [], 0.5)[0]:
                text += os.read(ours, 65_536)
        looking.send_signal(signal.SIGINT)
        while select.select([ours], [], [], 5)[0]:  # a terminal that nobody reads would keep it
            try:
                if not os.read(ours, 65_536):
                    break
            except OSError:
                break
        assert looking.wait(10) == 130
    os.close(ours)
    assert text.count(b"requests/s") >= 2
    assert b"\x1b[?1049h" in text, "the view has the screen for itself"


def test_where_nothing_runs_one_line_says_so(tmp_path: Path) -> None:
    done = run_command("top", "--once", "--state-dir", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"mcp-gateway: no gateway runs with state_dir {tmp_path}\n")
    assert run_command("top", "--interval", "0").returncode == 2


def test_names_that_others_have_chosen_harm_no_terminal() -> None:
    tool = {"backend": "b", "tool": "\x1b[2J", "calls_per_second": 1.0, "error_share": 0.0}
    seen = {
        **{"status": "viable", "aches": [], "requests_per_second": 0.0, "error_share": 0.0, "mean_seconds": None},
        **{"backends": [], "tools": [tool], "methods": []},
    }
    assert "\x1b" not in "\n".join(lines_of(seen))
