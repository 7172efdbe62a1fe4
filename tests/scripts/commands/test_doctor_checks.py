"""Each thing that may be missing where a gateway is to run is found, with what to do about it; nothing is changed."""

from __future__ import annotations

import json
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.config.loader import settings_from_mapping
from mcp_gateway.config.settings import Settings
from mcp_gateway.scripts.commands import doctor_checks
from mcp_gateway.scripts.commands.doctor_checks import Finding, Verdict, findings, health_findings
from tests.doubles.gateway_process import GatewayProcess, run_command
from tests.doubles.pet_api import PETSTORE
from tests.doubles.ports import free_port
from tests.doubles.tls_relay import self_signed, tls_in_front_of
from tests.end_to_end.running_gateway import wait_until

DEMO = {"name": "demo", "builtin": "demo"}


def settings_of(tmp_path: Path, *backends: dict[str, Any], gateway: dict[str, Any] | None = None, **tables: Any) -> Settings:
    place = {"port": free_port(), "state_dir": str(tmp_path / "state"), **(gateway or {})}
    node = {"admin_port": free_port()}
    return settings_from_mapping(
        {"gateway": place, "actor_system": node, "backends": list(backends or (DEMO,)), **tables}, "test"
    )


def found(settings: Settings, what: str) -> list[Finding]:
    return [finding for finding in findings(settings) if finding.what == what]


def verdict(settings: Settings, what: str) -> Verdict:
    (finding,) = found(settings, what)
    assert (finding.verdict is Verdict.PROBLEM) <= bool(finding.advice)
    return finding.verdict


def test_where_all_is_well_nothing_is_to_be_done_and_nothing_was_made(tmp_path: Path) -> None:
    assert {finding.verdict for finding in findings(settings_of(tmp_path))} == {Verdict.OK}
    assert list(tmp_path.iterdir()) == []


# ---- the state directory


def test_a_state_directory_that_others_may_write_to_is_a_problem(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "state").mkdir(mode=0o700)
    assert verdict(settings, "state_dir") is Verdict.OK
    (tmp_path / "state").chmod(0o777)
    assert verdict(settings, "state_dir") is Verdict.PROBLEM
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o777


def test_one_in_a_file_cannot_be_reached_and_none_is_worth_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert verdict(settings_of(tmp_path, gateway={"state_dir": str(tmp_path / "file" / "state")}), "state_dir") is Verdict.PROBLEM
    assert verdict(settings_of(tmp_path, gateway={"state_dir": ""}), "state_dir") is Verdict.WARNING


# ---- the port


def test_a_port_in_use_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = settings_of(tmp_path, gateway={"port": listening.getsockname()[1]})
        assert verdict(settings, "port") is Verdict.PROBLEM


@pytest.mark.parametrize(("table", "key", "what"), [("actor_system", "admin_port", "admin port"), ("grpc", "port", "grpc")])
def test_so_is_another_port_that_the_gateway_needs(table: str, key: str, what: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        settings = settings_of(tmp_path, **{table: {key: listening.getsockname()[1]}})
        assert verdict(settings, what) is Verdict.PROBLEM
    assert verdict(settings, what) is Verdict.OK


def test_a_gateway_that_runs_already_is_told_with_its_address(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path / "state", "--embedded") as gateway:
        settings = settings_of(tmp_path, gateway={"port": int(gateway.url.rpartition(":")[2])})
        (finding,) = found(settings, "gateway")
        assert finding.verdict is Verdict.OK
        assert gateway.url in finding.text
        assert found(settings, "port") == []


# ---- limits


@pytest.mark.parametrize(("hard", "expected"), [(4_095, Verdict.WARNING), (4_096, Verdict.OK), (-1, Verdict.OK)])
def test_few_file_descriptors_are_worth_a_warning(
    hard: int, expected: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_024, hard))
    assert verdict(settings_of(tmp_path), "limits") is expected


# ---- issuers


class _Metadata(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if "oauth-authorization-server" in self.path else 404)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def metadata_server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def issued_by(tmp_path: Path, **issuer: Any) -> Settings:
    return settings_of(tmp_path, auth={"issuers": [{"audience": ["x"], **issuer}]})


def test_an_issuer_is_asked_for_its_metadata(tmp_path: Path) -> None:
    with metadata_server() as url:
        assert verdict(issued_by(tmp_path, issuer=url, allow_private=True), f"issuer {url}") is Verdict.OK
    assert verdict(issued_by(tmp_path, issuer=url, allow_private=True), f"issuer {url}") is Verdict.PROBLEM


def test_the_keys_of_an_issuer_may_be_a_file(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    settings = issued_by(tmp_path, issuer="https://id.example", jwks_file=str(keys))
    assert verdict(settings, "issuer https://id.example") is Verdict.PROBLEM
    keys.write_text('{"keys": []}')
    assert verdict(settings, "issuer https://id.example") is Verdict.OK


# ---- backends


def test_a_server_that_listens_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        for scheme in ("http", "ws", "sse+http", "auto+http"):
            backend = {"name": "a", "replicas": [f"{scheme}://127.0.0.1:{port}/mcp"]}
            assert verdict(settings_of(tmp_path, backend), "backend a") is Verdict.OK
    (finding,) = found(
        settings_of(tmp_path, {"name": "a", "replicas": [f"http://ann:secret@127.0.0.1:{port}/mcp?k=v"]}), "backend a"
    )
    assert finding.verdict is Verdict.PROBLEM
    assert "Connection refused" in finding.text
    assert "secret" not in finding.text


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ({"command": [sys.executable, "server.py"]}, Verdict.OK),
        ({"command": ["no-such-program"]}, Verdict.PROBLEM),
        ({"command": [sys.executable], "cwd": "/nowhere/at/all"}, Verdict.PROBLEM),
        ({"command": ["sh"], "env": {"PATH": "/nowhere"}}, Verdict.PROBLEM),
        ({"command": ["sh"]}, Verdict.OK),
    ],
)
def test_the_program_of_a_server_is_looked_for_where_it_will_be(
    backend: dict[str, Any], expected: Verdict, tmp_path: Path
) -> None:
    assert verdict(settings_of(tmp_path, {"name": "a", **backend}), "backend a") is expected


def test_a_description_is_read_and_one_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    settings = settings_of(tmp_path, {"name": "a", "openapi": str(path)})
    assert verdict(settings, "backend a") is Verdict.PROBLEM
    path.write_text('{"openapi": "3.1.0", "paths": ')
    assert verdict(settings, "backend a") is Verdict.PROBLEM
    path.write_text(PETSTORE.read_text())
    (finding,) = found(settings, "backend a")
    assert (finding.verdict, "operations" in finding.text) == (Verdict.OK, True)


def test_a_server_whose_certificate_is_not_trusted_is_told_apart_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_checks, "_CONNECT_S", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with tls_in_front_of(listening.getsockname()[1], *self_signed(tmp_path)) as port:
            (finding,) = found(settings_of(tmp_path, {"name": "a", "replicas": [f"https://127.0.0.1:{port}/mcp"]}), "backend a")
    assert (finding.verdict, "SSL_CERT_FILE" in finding.advice) == (Verdict.PROBLEM, True)


@pytest.mark.parametrize("key", ["openapi", "grpc"])
def test_an_api_elsewhere_is_connected_to_as_any_server(key: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        place = f"127.0.0.1:{port}" if key == "grpc" else f"http://127.0.0.1:{port}/api.json"
        settings = settings_of(tmp_path, {"name": "a", key: place, **({"allow_private": True} if key == "openapi" else {})})
        assert verdict(settings, "backend a") is Verdict.OK
    assert verdict(settings, "backend a") is Verdict.PROBLEM


@pytest.mark.parametrize(
    ("guard", "expected"),
    [
        ({"callable": "mcp_gateway.config.mask_secrets:judge"}, Verdict.OK),
        ({"callable": "no_such_module:judge"}, Verdict.PROBLEM),
        ({"callable": "mcp_gateway.config.mask_secrets:nothing"}, Verdict.PROBLEM),
        ({"callable": "mcp_gateway.config.mask_secrets:__name__"}, Verdict.PROBLEM),
        ({"url": "http://127.0.0.1:9/guard"}, Verdict.PROBLEM),
    ],
)
def test_a_guard_is_looked_for_before_it_is_asked(guard: dict[str, Any], expected: Verdict, tmp_path: Path) -> None:
    assert verdict(settings_of(tmp_path, {**DEMO, "tools": {"guard": guard}}), "guard of demo") is expected


def test_a_cluster_needs_its_key_and_one_nats_server(tmp_path: Path) -> None:
    key, gone = tmp_path / "cluster.key", f"nats://127.0.0.1:{free_port()}"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"nats://127.0.0.1:{listening.getsockname()[1]}"
        cluster = {"url": url, "node": "a", "key_file": str(key)}
        assert verdict(settings_of(tmp_path, cluster=cluster), "cluster") is Verdict.PROBLEM
        key.write_bytes(b"k" * 32)
        key.chmod(0o600)
        assert verdict(settings_of(tmp_path, cluster=cluster), "cluster") is Verdict.OK
        one_of_two = settings_of(tmp_path, cluster={**cluster, "url": f"{url},{gone}"})
        assert verdict(one_of_two, "cluster") is Verdict.WARNING
    assert verdict(settings_of(tmp_path, cluster=cluster), "cluster") is Verdict.PROBLEM


# ---- certificates, and the command


def test_certificates_that_cannot_be_used_are_a_problem(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, tls={"certificate": str(tmp_path / "none.pem"), "key": str(tmp_path / "none.key")})
    assert verdict(settings, "tls") is Verdict.PROBLEM


def test_the_command_tells_by_its_exit_code_and_as_json(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'[gateway]\nport = {free_port()}\nstate_dir = ""\n[actor_system]\nadmin_port = {free_port()}\n'
        '[[backends]]\nname = "a"\ncommand = ["no-such-program"]\n'
    )
    done = run_command("doctor", "--config", str(config))
    assert done.returncode == 1
    assert "PROBLEM backend a: there is no program 'no-such-program'; install it" in done.stdout
    rows = json.loads(run_command("doctor", "--config", str(config), "--json").stdout)
    assert {"what": "backend a", "verdict": "problem"}.items() <= next(row for row in rows if row["what"] == "backend a").items()
    config.write_text(config.read_text().replace('command = ["no-such-program"]', 'builtin = "demo"'))
    assert run_command("doctor", "--config", str(config)).returncode == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_command("doctor", "--config", str(config), "--port", str(port), "--host", "127.0.0.1")
        assert (done.returncode, "PROBLEM port: " in done.stdout, str(port) in done.stdout) == (1, True, True), done.stdout
    config.write_text("[gateway]\nport = -1\n")
    assert run_command("doctor", "--config", str(config)).returncode == 2


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ({"status": "healthy", "components": {}}, [("health", Verdict.OK)]),
        ({"status": "degraded"}, [("health", Verdict.WARNING)]),
        ([], [("health", Verdict.WARNING)]),
        (
            {
                "status": "unhealthy",
                "components": {
                    "router": {"status": "healthy"},
                    "files/stdio:files#0": {"status": "unhealthy", "reason": "ended with exit status 1"},
                    "memory": {"status": "degraded"},
                },
            },
            [("health of files/stdio:files#0", Verdict.PROBLEM), ("health of memory", Verdict.WARNING)],
        ),
    ],
)
def test_what_a_gateway_that_runs_says_of_itself_is_told(health: Any, expected: list[tuple[str, Verdict]]) -> None:
    assert [(finding.what, finding.verdict) for finding in health_findings(health)] == expected


def test_a_server_that_ends_at_once_is_found_where_the_gateway_runs(tmp_path: Path) -> None:
    backend = {"name": "ends", "command": [sys.executable, "-c", "import sys; sys.exit('no key')"]}
    settings = settings_of(tmp_path, backend, gateway={"health_check_interval": 0.2})
    text = f"[gateway]\nhealth_check_interval = 0.2\n[[backends]]\nname = 'ends'\ncommand = {json.dumps(backend['command'])}\n"
    with GatewayProcess(tmp_path / "state", "--embedded", cell_factory=None, settings=text):

        def why() -> str:
            return " ".join(finding.text for finding in found(settings, "health of ends/stdio:ends#0"))

        wait_until(lambda: "no key" in why(), 30, "the reason of the server's end")
