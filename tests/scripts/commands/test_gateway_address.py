"""Commands find the gateway of a state directory, know it by its certificate, and show it the token of their user."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from socket import create_server
from ssl import PROTOCOL_TLS_SERVER, SSLContext, SSLError
from typing import Any

import pytest

from mcp_gateway.scripts.commands import gateway_address
from mcp_gateway.scripts.commands.gateway_address import GatewayAddress, NothingToFollow, find_gateway
from tests.doubles.certificates import Authority
from tests.doubles.gateway_process import GatewayProcess, run_command

KEY = "operator-key"
SCOPE = "mcp-gateway:operate"


def run(url: str, admin_port: int | None, **more: Any) -> dict[str, Any]:
    return {"url": url, "admin_port": admin_port, **more}


@pytest.mark.parametrize(
    ("runs", "admin_port", "found"),
    [
        ([run("http://a", 1900)], None, GatewayAddress("http://a")),
        ([run("https://a", None, certificate="/c.pem")], None, GatewayAddress("https://a", "/c.pem")),
        ([run("http://a", 1900), run("http://b", 1901)], None, GatewayAddress("http://a")),
        ([run("http://a", 1900), run("http://b", 1901)], 1901, GatewayAddress("http://b")),
        ([], None, "no gateway runs with state_dir /s"),
        ([run("http://a", 1901)], 1902, "no gateway runs with state_dir /s and --admin-port 1902"),
        (
            [run("http://a", 1), run("http://b", 2)],
            None,
            "several gateways run with state_dir /s: http://a (--admin-port 1)",
        ),
    ],
)
def test_one_gateway_is_found_or_it_is_said_why_not(
    runs: list[dict[str, Any]], admin_port: int | None, found: GatewayAddress | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(gateway_address.TOKEN_VARIABLE, raising=False)
    monkeypatch.setattr(gateway_address, "live_runs", lambda _: runs)
    if isinstance(found, GatewayAddress):
        assert find_gateway(Path("/s"), admin_port, 1900) == found
    else:
        with pytest.raises(NothingToFollow) as refused:
            find_gateway(Path("/s"), admin_port, 1900)
        assert str(refused.value).startswith(found)


def test_a_token_is_not_shown_by_what_prints_the_address() -> None:
    address = GatewayAddress("http://a", token="secret")
    assert address.headers() == {"Authorization": "Bearer secret"}
    assert "secret" not in repr(address)


def handshake(address: Path, certificate: tuple[Path, Path]) -> None:
    """Connect, knowing the gateway by the file `address`, to a server that shows `certificate`."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            try:
                context.wrap_socket(accepted, server_side=True).close()
            except OSError:
                accepted.close()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        connection = GatewayAddress(f"https://127.0.0.1:{listener.getsockname()[1]}", str(address)).connection()
        try:
            connection.connect()
        finally:
            connection.close()
            server.join(5)


def test_the_certificate_of_the_gateway_is_believed_and_that_of_nobody_else(tmp_path: Path) -> None:
    """Not even one of the same authority, though a file has it behind the gateway's own."""
    authority = Authority(tmp_path)
    own, others = authority.certify("own"), authority.certify("others")
    handshake(own[0], own)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"Bag Attributes\n" + own[0].read_bytes() + authority.path.read_bytes())
    handshake(chain, own)
    for file in (own[0], chain):
        with pytest.raises(SSLError):
            handshake(file, others)


def test_a_file_that_cannot_be_used_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    for name, error in (("none.pem", SSLError), ("missing.pem", FileNotFoundError)):
        with pytest.raises(error):
            GatewayAddress("https://127.0.0.1:1", str(tmp_path / name)).connection()


def test_a_gateway_with_tls_and_login_is_asked_and_followed_with_the_token_of_the_user(tmp_path: Path) -> None:
    """The certificate is of nobody's authority and for another name, as one for mcp.example.com is at 127.0.0.1."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    files = ["-subj", "/CN=mcp.example", "-keyout", str(key), "-out", str(certificate)]
    made = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *files]
    subprocess.run(made, check=True, capture_output=True)
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    settings = f"""
[tls]
certificate = {json.dumps(os.path.relpath(certificate))}
key = {json.dumps(str(key))}
[[auth.api_keys]]
name = "ops"
hash = "sha256:{digest}"
scopes = ["{SCOPE}"]
[[backends]]
name = "demo"
prefix = ""
builtin = "demo"
"""
    with GatewayProcess(tmp_path / "state", cell_factory=None, settings=settings) as gateway:
        elsewhere = {"MCP_GATEWAY_TOKEN": KEY}
        attached = ["--state-dir", str(gateway.state_dir), "--admin-port", str(gateway.admin_port)]
        called = run_command("call", "echo", "message=hi", *attached, env=elsewhere)
        assert (called.returncode, called.stdout, called.stderr) == (0, "hi\n", "")
        events = [sys.executable, "-m", "mcp_gateway.scripts.command_line", "events", "--since", "0", *attached]
        with subprocess.Popen(events, stdout=subprocess.PIPE, text=True, env={**os.environ, **elsewhere}) as following:
            assert following.stdout is not None
            assert "mcp.transport.registered" in following.stdout.readline()
            following.kill()
        for command in (["call", "echo", "message=hi"], ["events"]):
            refused = run_command(*command, *attached)
            assert refused.returncode == 1
            assert refused.stderr.endswith(" (MCP_GATEWAY_TOKEN has the token to show)\n")
            wrong = run_command(*command, *attached, env={"MCP_GATEWAY_TOKEN": "wrong"})
            assert wrong.returncode == 1
            assert "MCP_GATEWAY_TOKEN" not in wrong.stderr
