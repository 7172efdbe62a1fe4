"""The unit for systemd is one that systemd takes, and it runs commands and options that exist."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.gateway_process import run_command
from tests.end_to_end.running_gateway import is_continuous_integration

UNIT = Path(__file__).parents[2] / "config" / "mcp-gateway.service"
INSTALLED = "/opt/mcp-gateway/bin/mcp-gateway"


def service() -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT)
    return unit["Service"]


def test_systemd_finds_no_mistake_in_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None and not is_continuous_integration():
        pytest.skip("systemd-analyze is not installed")
    program = Path(sys.executable).parent / "mcp-gateway"
    assert program.exists()
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, str(program)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if UNIT.name in line]) == (0, [])
    unit.write_text(unit.read_text().replace("Type=notify", "Type=none-such"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    assert UNIT.name in done.stderr  # it does look


def test_what_the_unit_starts_takes_these_options(tmp_path: Path) -> None:
    program, *arguments = shlex.split(service()["ExecStart"])
    assert program == INSTALLED
    done = run_command(*arguments, "--config", str(tmp_path / "none.toml"))  # the last --config counts
    assert done.returncode == 2
    assert "none.toml" in done.stderr


def test_it_is_reloaded_by_the_signal_that_reloads_and_stopped_within_its_time() -> None:
    settings = service()
    assert settings["ExecReload"].split() == ["/bin/kill", "-HUP", "$MAINPID"]
    assert int(settings["TimeoutStopSec"]) >= 10 + 5 + 2  # drain_timeout and what the launcher adds, see `launcher`
    assert int(settings["WatchdogSec"]) > 20  # what a start of the whole system may take
