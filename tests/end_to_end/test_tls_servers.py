"""Servers behind TLS, over each transport that has it: trusted by the usual variable of OpenSSL, else refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.doubles.certificates import Authority
from tests.doubles.sdk_server import start_sdk_server
from tests.doubles.tls_relay import self_signed, tls_in_front_of
from tests.end_to_end.python_client import connected, run, text_of
from tests.end_to_end.raw_http import ask_modern, tool_call

URLS = {
    "streamable-http": "https://localhost:{port}/mcp",
    "sse": "sse+https://localhost:{port}/sse",
    "websocket": "wss://localhost:{port}/ws",
}


@pytest.mark.parametrize("transport", URLS)
def test_a_server_behind_tls_is_served_where_its_certificate_is_trusted(
    transport: str, start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def converse() -> None:
        reports: list[float] = []

        async def report(progress: float, total: float | None, message: str | None) -> None:
            reports.append(progress)

        async with connected(gateway.endpoint(), "legacy") as (client, record):
            assert text_of(await client.call_tool("echo", {"message": "over TLS"})) == "over TLS"
            await client.call_tool("progress", {"steps": 3}, progress_callback=report)
            assert reports == [1, 2, 3]
            assert text_of(await client.call_tool("elicit", {})) == "accept: Hello, Ada!"
            assert record.questions == ["elicitation"]

    with start_sdk_server(era="legacy", transport=transport) as server:  # type: ignore[arg-type]
        with tls_in_front_of(server.port, certificate, key) as port:
            url = URLS[transport].format(port=port)
            with start_gateway("embedded", [{"name": "all", "prefix": "", "replicas": [url]}]) as gateway:
                run(converse())


@pytest.mark.parametrize("transport", URLS)
def test_a_server_that_asks_for_a_certificate_is_shown_the_one_of_its_backend(
    transport: str, start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    certificate, key = (str(path) for path in authority.certify("gateway"))
    shows = {"client_certificate": certificate, "client_key": key}
    with start_sdk_server(era="legacy", transport=transport) as server:  # type: ignore[arg-type]
        with tls_in_front_of(server.port, *authority.certify("server"), authority.path) as port:
            replicas = [URLS[transport].format(port=port)]
            backends = [{"name": "shows", "replicas": replicas, **shows}, {"name": "hides", "replicas": replicas}]
            with start_gateway("embedded", backends) as gateway:
                told = {
                    name: ask_modern(gateway.endpoint(), tool_call(f"{name}__echo", {"message": "hi"})).status
                    for name in ("shows", "hides")
                }
    assert told == {"shows": 200, "hides": 502}


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("localhost", "the server's certificate is not accepted: self-signed certificate"),
        ("plain", "TLS failed: wrong version number"),
    ],
)
@pytest.mark.parametrize("transport", URLS)
def test_what_is_wrong_with_tls_is_said(
    transport: str, host: str, reason: str, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """A certificate that nobody trusts, and a server that speaks no TLS."""
    with start_sdk_server(era="legacy", transport=transport) as server:  # type: ignore[arg-type]
        with tls_in_front_of(server.port, *self_signed(tmp_path)) as relay_port:
            url = URLS[transport].format(port=server.port if host == "plain" else relay_port)
            with start_gateway("embedded", [{"name": "all", "prefix": "", "replicas": [url]}]) as gateway:
                answer = ask_modern(gateway.endpoint(), tool_call("echo", {"message": "hi"}))
    assert (answer.status, answer.reason) == (502, "upstream_failed")
    assert reason in answer.message["error"]["message"]
