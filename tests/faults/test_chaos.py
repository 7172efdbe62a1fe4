"""`scripts/chaos` as an operator runs it, against the gateway as it is, and against gateways that are broken on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.scripts.chaos_harness.chaos_run import EXIT_BROKEN, EXIT_FAILED

ROOT = Path(__file__).parents[2]
BROKEN_GATEWAY = ROOT / "tests" / "doubles" / "broken_gateway.py"


def run_chaos(
    folder: Path, *options: str, timeout_s: float = 115, module: str = "chaos_run", report: str = "report.json"
) -> tuple[int, dict[str, Any], str]:
    """(exit code, report, what was said)"""
    done = subprocess.run(
        [sys.executable, "-m", f"mcp_gateway.scripts.chaos_harness.{module}", "--report", str(folder), *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    path = folder / report
    return done.returncode, json.loads(path.read_text()) if path.exists() else {}, done.stdout + done.stderr


def check_that_nothing_is_broken(folder: Path, *options: str, timeout_s: float) -> dict[str, Any]:
    report = check_that_nothing_is_broken_in_a_cluster(folder, *options, timeout_s=timeout_s)
    assert "gateway.log" in {path.name for path in folder.iterdir()}
    return report


def check_that_nothing_is_broken_in_a_cluster(folder: Path, *options: str, timeout_s: float) -> dict[str, Any]:
    exit_code, report, said = run_chaos(folder, *options, timeout_s=timeout_s)
    assert exit_code == 0, said
    assert report["broken"] == []
    assert report["first_try_where_well"] >= 0.99
    assert {path.name for path in folder.iterdir()} >= {"report.md", "timeline.svg", "history.jsonl"}
    return report


def test_nothing_is_broken_by_faults_of_every_kind(tmp_path: Path) -> None:
    """With one seed, so that what fails here fails again; none of its faults replaces all cells while another one lasts."""
    report = check_that_nothing_is_broken(tmp_path, "--seconds", "30", "--seed", "39", "--patience", "4", timeout_s=110)
    assert report["calls"] > 200
    assert report["acknowledged"] > 20
    assert len(report["faults"]) >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("form", [("--cells", "2"), ("--embedded",)], ids=["two cells", "embedded"])
def test_nothing_is_broken_in_ten_minutes(form: tuple[str, ...], seed: str, tmp_path: Path) -> None:
    check_that_nothing_is_broken(tmp_path, *form, "--seed", seed, "--seconds", "600", timeout_s=800)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nobody_feels_what_operators_do_to_a_gateway_that_serves(tmp_path: Path) -> None:
    """Rolling restarts, upgrades and reloads, at times two at once: nothing accounts for a refusal."""
    scenario = ROOT / "scripts" / "chaos_harness" / "replaced.toml"
    report = check_that_nothing_is_broken(tmp_path, "--scenario", str(scenario), "--patience", "3", timeout_s=300)
    assert {each["fault"] for each in report["faults"]} == {"rolling restart", "upgrade", "reload"}
    assert report["refusals"].keys() <= {"cut"}


@pytest.mark.timeout(300)
def test_nothing_is_broken_in_a_cluster_whose_nodes_engine_and_links_fail(tmp_path: Path) -> None:
    """With the seed that has a NATS server die, and then a node."""
    options = ("--cluster", "--seconds", "24", "--seed", "36", "--patience", "4")
    report = check_that_nothing_is_broken_in_a_cluster(tmp_path, *options, timeout_s=240)
    assert report["calls"] > 100
    assert {each["fault"] for each in report["faults"]} == {"kill nats", "kill node"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_nothing_is_broken_in_a_cluster_in_ten_minutes(seed: str, tmp_path: Path) -> None:
    check_that_nothing_is_broken_in_a_cluster(tmp_path, "--cluster", "--seed", seed, "--seconds", "600", timeout_s=800)


BROKEN_ON_PURPOSE = {
    "replay": (["kill event log"], "no acknowledged event is lost doubled or reordered"),
    "repeat": (["nothing from server", "reset by server"], "no unsafe call runs twice"),
    "breaker": (["nothing from server", "reset by server"], "all is well again in time"),
}


@pytest.mark.timeout(300)
def test_the_harness_finds_each_mechanism_that_is_broken_on_purpose(tmp_path: Path) -> None:
    """Events are not sent again, a call that must not run twice is, a circuit never closes.

    One seed is enough: that something breaks is no matter of moments. What is published while there is no event log is lost
    unless it is sent again; of what servers run and do not answer nearly every call must not run again; and the first fault meets
    the only server of a backend, for longer than it takes to open a circuit, which then never lets its calls through.
    """

    def found(what: str) -> bool:
        faults, invariant = BROKEN_ON_PURPOSE[what]
        folder = tmp_path / what
        folder.mkdir()
        scenario = folder / "scenario.toml"
        scenario.write_text(f"seconds = 18\ncells = 1\nclients = 2\neach_s = 1\npause_s = 0.05\nfaults = {json.dumps(faults)}\n")
        command = f"{sys.executable} {BROKEN_GATEWAY} {what}"
        exit_code, report, said = run_chaos(folder, "--scenario", str(scenario), "--gateway", command, "--seed", "5")
        assert exit_code in (0, EXIT_BROKEN), said
        return invariant in {each["invariant"] for each in report["broken"]}

    with ThreadPoolExecutor(len(BROKEN_ON_PURPOSE)) as pool:
        assert dict(zip(BROKEN_ON_PURPOSE, pool.map(found, BROKEN_ON_PURPOSE), strict=True)) == dict.fromkeys(
            BROKEN_ON_PURPOSE, True
        )


def test_a_gateway_that_does_not_start_and_a_scenario_that_is_none_are_told(tmp_path: Path) -> None:
    exit_code, _, said = run_chaos(tmp_path, "--gateway", "false")
    assert (exit_code, "chaos: the gateway did not start" in said) == (EXIT_FAILED, True)
    exit_code, _, said = run_chaos(tmp_path, "--gateway", "no-such-command")
    assert (exit_code, said) == (EXIT_FAILED, "chaos: no-such-command cannot be started: No such file or directory\n")
    (tmp_path / "s.toml").write_text("speed = 1")
    exit_code, _, said = run_chaos(tmp_path, "--scenario", str(tmp_path / "s.toml"))
    assert (exit_code, "chaos: speed: unknown" in said) == (EXIT_FAILED, True)


def check_soak(folder: Path, *options: str, timeout_s: float) -> None:
    exit_code, report, said = run_chaos(folder, *options, timeout_s=timeout_s, module="soak_run", report="soak.json")
    assert exit_code == 0, said
    assert report["broken"] == []
    assert min(report["abandoned"].values()) > 0
    before, full, _ = report["rested"]
    assert report["idle_count"] > 0
    # What a process takes for its heap at once does not grow with the sessions; a few of them would be charged with all of it.
    assert (full["memory_mb"] - before["memory_mb"]) * 1e6 < 8e6 + 12_000 * report["idle_count"]


def test_what_clients_leave_behind_is_given_back(tmp_path: Path) -> None:
    check_soak(tmp_path, "--seconds", "10", "--embedded", timeout_s=110)


@pytest.mark.slow
@pytest.mark.timeout(2700)
@pytest.mark.parametrize("form", [("--cells", "2"), ("--embedded",)], ids=["two cells", "embedded"])
def test_what_clients_leave_behind_for_half_an_hour_is_given_back(form: tuple[str, ...], tmp_path: Path) -> None:
    check_soak(tmp_path, *form, "--seconds", "1800", timeout_s=2600)
