"""The certificate that the gateway shows to servers which ask for one."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from mcp_gateway.transports.upstream.http.client_tls import ClientTls
from mcp_gateway.transports.upstream.http.http1_client import CannotConnect, Http1Client
from mcp_gateway.transports.upstream.http.server_connection import ExchangeCut
from tests.doubles.certificates import Authority


@pytest.fixture(name="authority")
def authority_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Trusted by what is made in this test."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


def wanting_certificates(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certify("server"))
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_a_server_that_wants_a_certificate_is_shown_the_one_of_now(authority: Authority) -> None:
    async def body() -> None:
        shown: list[object] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            shown.append(writer.get_extra_info("peercert")["serialNumber"])
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=wanting_certificates(authority))
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        certificate, key = authority.certify("gateway")
        client = Http1Client(url, {}, ClientTls(str(certificate), str(key)))
        for _ in range(2):
            async with client.request("GET", url, {}, timeout_s=10.0) as answered:
                assert await answered.read() == b"ok"
            authority.certify("gateway")
        assert len(set(shown)) == 2
        with pytest.raises((CannotConnect, ExchangeCut)):
            async with Http1Client(url, {}).request("GET", url, {}, timeout_s=10.0):
                pass
        assert len(shown) == 2
        server.close()

    asyncio.run(body())


def test_files_that_cannot_be_used_are_no_connection_and_may_be_mended(authority: Authority) -> None:
    certificate, key = authority.certify("gateway")
    tls = ClientTls(str(certificate), str(key))
    right = key.read_bytes()
    key.write_bytes(b"x")
    with pytest.raises(OSError, match=r"(?i)pem|ssl"):
        tls.context()
    key.unlink()
    with pytest.raises(FileNotFoundError):
        tls.context()

    async def body() -> None:
        with pytest.raises(CannotConnect):
            async with Http1Client("https://127.0.0.1:9/", {}, tls).request("GET", "https://127.0.0.1:9/", {}, timeout_s=10.0):
                pass

    asyncio.run(body())
    key.write_bytes(right)
    assert tls.context() is tls.context()
