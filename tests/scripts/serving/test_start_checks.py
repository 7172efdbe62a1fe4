"""What is done before anything starts."""

from __future__ import annotations

import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from mcp_gateway.config.settings import ActorSystemSettings, BackendSettings, GatewaySettings, Settings
from mcp_gateway.scripts.serving import start_checks
from mcp_gateway.scripts.serving.start_checks import (
    RunDirectory,
    allow_many_files,
    live_runs,
    log_exposure,
    reserve_ports,
    say_where,
)
from tests.doubles.ports import free_port


def test_all_files_that_the_user_may_open_can_be_opened() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_port_that_the_system_chooses_is_not_the_admins(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be: nobody listens on the admin's port yet. Here the first choice always is."""
    admin_port = free_port()
    choices = []

    def reserve(host: str, port: int) -> list[socket.socket]:
        choices.append(reserve_port(host, port if choices else admin_port))
        return choices[-1]

    reserve_port = start_checks.reserve_port
    monkeypatch.setattr(start_checks, "reserve_port", reserve)
    settings = Settings(gateway=GatewaySettings(port=0), actor_system=ActorSystemSettings(admin_port=admin_port))
    reserved, found = reserve_ports(settings)
    try:
        assert found == admin_port
        assert reserved[0].getsockname()[1] not in (0, admin_port)
        assert [each.fileno() for each in choices[0]] == [-1]
    finally:
        for each in reserved:
            each.close()


def test_a_start_that_others_can_reach_logs_what_it_lacks_and_any_other_nothing(caplog: pytest.LogCaptureFixture) -> None:
    log_exposure(Settings())
    assert caplog.records == []
    log_exposure(Settings(gateway=GatewaySettings(host="0.0.0.0")))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3


def test_a_run_is_described_again_without_a_moment_in_which_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after each system call that changes the file."""
    run = RunDirectory.make(tmp_path)
    seen = []
    try:
        run.describe(url="x" * 200)
        for name in ("ftruncate", "pwrite"):

            def looking(*arguments: object, call: object = getattr(os, name)) -> object:
                result = call(*arguments)  # type: ignore[operator]
                seen.append(live_runs(tmp_path))
                return result

            monkeypatch.setattr(os, name, looking)
        run.describe(url="y")
        assert seen == [[{"url": "y"}]]
        run.describe_nothing()
        assert seen[1:] == [[]]
    finally:
        os.close(run._lock_fd)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_programs_read_one_line_and_people_the_addresses_after_it(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    say_where(Settings(backends=(BackendSettings(name="files", builtin="demo"),)))
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "mcp-gateway listening on http://127.0.0.1:4000"
    assert bool(others) is is_terminal
    assert not others or "http://127.0.0.1:4000/mcp/servers/files" in others[3]
