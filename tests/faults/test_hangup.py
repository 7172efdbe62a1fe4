"""SIGHUP asks a gateway to read its settings again; where its terminal has closed, to end. A changed file is read by itself."""

from __future__ import annotations

import os
import pty
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.end_to_end.raw_http import ask_modern, request

DEMO = '[[backends]]\nname = "demo"\nbuiltin = "demo"\n'
OTHER = DEMO.replace('name = "demo"', 'name = "other"')
WATCHING = f"[gateway]\nwatch_config = true\n{DEMO}"
FORMS = {"node": (), "embedded": ("--embedded",)}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return FORMS[request.param]


def tool_prefixes(gateway: GatewayProcess) -> set[str]:
    listed = ask_modern(f"{gateway.url}/mcp", request("tools/list")).message["result"]["tools"]
    return {tool["name"].partition("__")[0] for tool in listed}


def write(gateway: GatewayProcess, text: str) -> None:
    gateway.state_dir.with_suffix(".toml").write_text(text)


def test_a_signal_has_the_file_read_again_and_mistakes_in_it_change_nothing(form: tuple[str, ...], tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", *form, cell_factory=None, settings=DEMO) as gateway:
        assert tool_prefixes(gateway) == {"demo"}
        write(gateway, DEMO + OTHER)
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: tool_prefixes(gateway) == {"demo", "other"}, 20, "the new backend is served")
        write(gateway, "[gateway]\nport = -1\n")
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "nothing was reloaded" in gateway.errors, 20, "the mistake is told")
        assert tool_prefixes(gateway) == {"demo", "other"}
        assert gateway.end() == 0


def test_a_file_that_only_a_new_start_could_follow_is_refused_and_the_next_one_is_read(
    form: tuple[str, ...], tmp_path: Path
) -> None:
    public = '[gateway]\npublic_url = "https://gateway.example"\n'
    auth = f'[[auth.api_keys]]\nname = "ci"\nhash = "sha256:{"0" * 64}"\n'
    user = '[[backends]]\nname = "mine"\nreplicas = ["https://server.example/mcp"]\nauth = "user"\n'
    with GatewayProcess(tmp_path / "state", *form, cell_factory=None, settings=public + DEMO) as gateway:
        write(gateway, public + auth + DEMO + user)
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "nothing was reloaded: reload" in gateway.errors, 20, "the refusal is told")
        write(gateway, public + DEMO + OTHER)
        gateway.process.send_signal(signal.SIGHUP)
        wait_until(lambda: tool_prefixes(gateway) == {"demo", "other"}, 20, "the new backend is served")
        assert "again" not in gateway.errors  # no process was started anew
        assert gateway.end() == 0


def test_a_changed_file_is_taken_in_by_itself_where_that_is_wanted(form: tuple[str, ...], tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", *form, cell_factory=None, settings=WATCHING) as gateway:
        write(gateway, WATCHING + OTHER)
        wait_until(lambda: tool_prefixes(gateway) == {"demo", "other"}, 20, "the new backend is served")
        write(gateway, WATCHING)
        wait_until(lambda: tool_prefixes(gateway) == {"demo"}, 20, "the old ones alone are served")
        assert gateway.end() == 0


def test_a_gateway_whose_terminal_closes_drains_and_ends(form: tuple[str, ...], tmp_path: Path) -> None:
    leader, terminal = pty.openpty()
    with GatewayProcess(tmp_path / "state", *form, terminal=terminal) as gateway:
        os.close(terminal)
        os.kill(gateway.process.pid, signal.SIGHUP)  # the terminal is still there: this asks for a reload
        assert gateway.get("/pid")
        os.close(leader)
        assert gateway.process.wait(20) == 0
        assert gateway.left_over() == []


# ---- a service manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(20)
        yield bound


def next_state(manager: socket.socket) -> list[str]:
    """What is told next, but for signs of life."""
    while (lines := manager.recv(4_096).decode().split("\n")) == ["WATCHDOG=1"]:
        pass
    return lines


def test_a_service_manager_is_told_when_it_serves_reloads_and_stops(
    form: tuple[str, ...], manager: socket.socket, tmp_path: Path
) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname()}
    with GatewayProcess(tmp_path / "state", *form, cell_factory=None, settings=DEMO, env=env) as gateway:
        assert next_state(manager) == ["READY=1", f"STATUS=listening on {gateway.url}"]
        write(gateway, DEMO + OTHER)
        gateway.process.send_signal(signal.SIGHUP)
        assert next_state(manager)[0] == "RELOADING=1"
        assert next_state(manager) == ["READY=1", "STATUS=reloaded, 1 backend changes"]
        assert tool_prefixes(gateway) == {"demo", "other"}
        assert gateway.end() == 0
        assert next_state(manager)[0] == "STOPPING=1"


def test_signs_of_life_stop_with_what_must_not_hang(form: tuple[str, ...], manager: socket.socket, tmp_path: Path) -> None:
    """Of a node the launcher alone tells, and only while its supervisor beats."""
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "2000000"}
    with GatewayProcess(tmp_path / "state", *form, env=env) as gateway:
        heard = [manager.recv(4_096) for _ in range(3)]
        assert heard.count(b"WATCHDOG=1") >= 1
        stopped = gateway.process.pid if form else gateway.pid("node-supervisor")
        os.kill(stopped, signal.SIGSTOP)
        try:
            manager.settimeout(3)  # shorter than the launcher waits before it starts the system again
            quiet_s = time.monotonic() + 20
            with pytest.raises(TimeoutError):
                while time.monotonic() < quiet_s:
                    manager.recv(4_096)
        finally:
            os.kill(stopped, signal.SIGCONT)
