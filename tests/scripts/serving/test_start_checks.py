"""What is done before anything starts."""

from __future__ import annotations

import os
import resource
import socket
import stat
import sys
from pathlib import Path

import pytest

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.config.cluster_settings import ClusterSettings
from mcp_gateway.config.curation_settings import ServerSettings
from mcp_gateway.config.grpc_settings import GrpcSettings
from mcp_gateway.config.settings import ActorSystemSettings, GatewaySettings, Settings
from mcp_gateway.scripts.serving import start_checks
from mcp_gateway.scripts.serving.start_checks import (
    RunDirectory,
    StartRefused,
    allow_many_files,
    check_cluster,
    check_grpc,
    live_runs,
    log_exposure,
    prepare_state_directory,
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
    backends = (BackendSettings(name="files", builtin="demo"),)
    servers = (ServerSettings(name="research", include=("files/read_*",)),)
    say_where(Settings(backends=backends, servers=servers, grpc=GrpcSettings(port=50052)))
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "mcp-gateway listening on http://127.0.0.1:4000"
    assert bool(others) is is_terminal
    found = [line.split()[-1] for line in others]
    assert not others or {"http://127.0.0.1:4000/mcp/servers/files", "127.0.0.1:50052"} < set(found)
    assert not others or "http://127.0.0.1:4000/mcp/servers/research" in found


# ---- the state directory


def made(path: Path, mode: int) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o700, None])
def test_a_state_directory_of_ones_own_is_taken_without_a_word(
    mode: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state" if mode is None else made(tmp_path / "state", mode)
    prepare_state_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert caplog.records == []


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o744])
def test_one_that_others_may_read_is_closed_to_them(mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = made(tmp_path / "state", mode)
    prepare_state_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{mode:04o}" in caplog.text


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_one_that_others_may_write_to_is_refused_and_left_as_it_is(mode: int, tmp_path: Path) -> None:
    path = made(tmp_path / "state", mode)
    with pytest.raises(StartRefused, match=f"state_dir {path} has mode {mode:04o}; others may write"):
        prepare_state_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("is_link", [False, True])
def test_one_of_another_user_is_refused(is_link: bool, tmp_path: Path) -> None:
    """A link too: who has made it chooses what is written to."""
    target = made(tmp_path / "state", 0o700)
    path = tmp_path / "link" if is_link else target
    if is_link:
        path.symlink_to(target)
    os.chown(path, 12_345, -1, follow_symlinks=False)
    with pytest.raises(StartRefused, match="belongs to user id 12345"):
        prepare_state_directory(path)


def test_a_link_of_ones_own_is_followed(tmp_path: Path) -> None:
    target = made(tmp_path / "state", 0o755)
    (tmp_path / "link").symlink_to(target)
    prepare_state_directory(tmp_path / "link")
    assert stat.S_IMODE(target.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_what_another_user_has_put_where_runs_are_is_not_looked_into(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    trap = made(tmp_path / f"{start_checks.RUN_PREFIX}trap", 0o755)
    os.mkfifo(trap / start_checks.RUN_FILE_NAME)
    os.chown(trap, 12_345, -1)
    run = RunDirectory.make(tmp_path)
    try:
        assert {stat.S_IMODE(path.stat().st_mode) for path in (run.path, run.metrics_path)} == {0o700}
        assert stat.S_IMODE((run.path / start_checks.RUN_FILE_NAME).stat().st_mode) == 0o600
    finally:
        run.remove()
    assert trap.exists()


def cluster_settings(key_file: Path, **more: str) -> Settings:
    return Settings(cluster=ClusterSettings(url="nats://127.0.0.1:1", node="a", key_file=str(key_file), **more))


def test_a_node_of_a_cluster_does_not_start_without_the_key_of_the_cluster(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    with pytest.raises(StartRefused, match="copy it to the others"):
        check_cluster(cluster_settings(key_file))
    key_file.write_bytes(b"x" * 31)
    key_file.chmod(0o600)
    with pytest.raises(StartRefused, match="has 31 bytes, at least 32"):
        check_cluster(cluster_settings(key_file))
    key_file.write_bytes(b"x" * 32)
    check_cluster(cluster_settings(key_file))
    with pytest.raises(StartRefused, match="no-such-file"):
        check_cluster(cluster_settings(key_file, tls_ca=str(tmp_path / "no-such-file")))
    with pytest.raises(StartRefused, match="Is a directory"):
        check_cluster(cluster_settings(key_file, user="gateway", password_file=str(tmp_path)))
    key_file.chmod(0o644)
    with pytest.raises(StartRefused, match="others may read"):
        check_cluster(cluster_settings(key_file))


def test_a_node_that_is_alone_needs_no_key() -> None:
    check_cluster(Settings())


def test_a_port_for_grpc_that_is_in_use_and_an_extra_that_is_not_there_are_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    check_grpc(Settings())
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = Settings(grpc=GrpcSettings(port=held.getsockname()[1]))
        with pytest.raises(StartRefused, match="is in use"):
            check_grpc(taken)
        monkeypatch.setattr(start_checks, "find_spec", lambda name: None)
        with pytest.raises(StartRefused, match=r"pip install 'mcp-gateway\[grpc\]'"):
            check_grpc(taken)
