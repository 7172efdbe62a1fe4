"""`logs` as users run it: of a gateway that runs, is started again, and has ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.doubles.gateway_process import GatewayProcess, run_command, wait_until


def test_the_log_is_followed_through_a_restart_and_read_when_nothing_runs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "logs", "--state-dir", str(state)]
    # 1. Nothing was ever kept.
    nothing = run_command("logs", "--state-dir", str(state))
    assert (nothing.returncode, nothing.stderr) == (1, f"mcp-gateway: no gateway has kept a log in {state}\n")
    seen = tmp_path / "seen"
    with seen.open("w") as file:
        following = subprocess.Popen([*command, "-f", "--json"], stdout=file)
    try:
        # 2. Each run writes lines, in several processes, all of which the follower sees.
        for run in (1, 2):
            with GatewayProcess(state) as gateway:
                assert gateway.command("kill", "cell/0").returncode == 0
                wait_until(lambda least=run: seen.read_text().count("cell-0 ended") >= least, 10, "a line of each run")
                gateway.end()
        lines = [json.loads(line) for line in seen.read_text().splitlines()]
        assert len({line["process"] for line in lines}) >= 2
    finally:
        following.terminate()
        following.wait(5)
    # 3. Nothing runs, and the log is still there; a pipe gets no colours.
    after = run_command("logs", "--state-dir", str(state), "-n", "1")
    assert after.returncode == 0
    assert len(after.stdout.splitlines()) == 1
    assert "\x1b" not in after.stdout
    unknown = run_command("logs", "--state-dir", str(state), "--request", "cell/0#made-up")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == "mcp-gateway: nothing in the log is about 'cell/0#made-up'\n"
    assert run_command("logs", "--state-dir", str(state), "--request", "made-up", "-n", "0").returncode == 0
    warnings = run_command("logs", "--state-dir", str(state), "--level", "warning", "--json")
    assert {json.loads(line)["level"] for line in warnings.stdout.splitlines()} <= {"warning", "error"}


def test_without_a_state_directory_there_is_no_log(tmp_path: Path) -> None:
    done = run_command("logs", "--state-dir", "")
    assert (done.returncode, done.stderr) == (1, 'mcp-gateway: state_dir is "": the gateway keeps no log\n')
    assert run_command("logs", "--lines", "x").returncode == 2
