"""TLS in front of a whole cell: versions, certificates that change, clients that show one, and what happens in plain HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.typing import Subprotocol

from mcp_gateway.config.identity_settings import TlsSettings
from mcp_gateway.transports.downstream.server import server as server_module
from mcp_gateway.transports.downstream.server.tls import ServerTls, TlsUnusableError
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind, LogInRefused
from tests.doubles.certificates import Authority
from tests.doubles.running_cell import RunningCell, cell_settings, running_cell
from tests.doubles.tokens import ISSUER, PUBLIC_URL, IssuerKey, base64url, jwks

KEY = IssuerKey.make("k")
PING = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
ALICE = ((NameOID.ORGANIZATION_NAME, "Example, Inc."), (NameOID.COMMON_NAME, "alice"))


@attrs.frozen
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes


def get(url: str, context: ssl.SSLContext, body: bytes | None = None, more: dict[str, str] | None = None) -> Answered:
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **(more or {})}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return Answered(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as error:
        return Answered(error.code, {}, error.read())


def trusting(authority: Authority, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.path))
    if certificate is not None:
        context.load_cert_chain(*certificate)
    return context


def on_tls(
    authority: Authority, scenario: Callable[[RunningCell, str], Coroutine[Any, Any, None]], tls: dict[str, Any], **tables: Any
) -> None:
    """Run the scenario against a cell; gives it the base of its URLs."""

    async def body() -> None:
        certificate, key = authority.certify("server")
        settings = cell_settings(tls={"certificate": str(certificate), "key": str(key), **tls}, **tables)
        async with running_cell(settings) as cell:
            await scenario(cell, f"https://127.0.0.1:{settings.gateway.port}")

    asyncio.run(body())


@pytest.fixture(name="authority")
def authority_fixture(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.mark.parametrize("public_url", ["", "https://mcp.example/ai"])
def test_the_addresses_to_copy_are_those_that_speak_tls(authority: Authority, public_url: str) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        answer = await asyncio.to_thread(get, f"{base}/", trusting(authority))
        addresses = {each["what"]: each["url"] for each in json.loads(answer.body)["addresses"]}
        assert addresses["Streamable HTTP"] == f"{public_url or base}/mcp"
        assert addresses["WebSocket"] == f"{public_url or base}/mcp/ws".replace("https://", "wss://")

    on_tls(authority, scenario, {}, gateway={"public_url": public_url})


def test_clients_are_served_over_tls_and_told_to_come_so_again(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        answer = await asyncio.to_thread(get, f"{base}/health/live", trusting(authority))
        assert answer.status == 200
        assert answer.headers["strict-transport-security"] == "max-age=3600"
        assert cell.settings.url == base.replace("https://127.0.0.1", f"https://{cell.settings.gateway.host}")

    on_tls(authority, scenario, {"hsts": 3600})


def test_the_addresses_to_copy_are_those_of_tls(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        answer = await asyncio.to_thread(get, f"{base}/", trusting(authority))
        assert f"{base}/mcp" in [each["url"] for each in json.loads(answer.body)["addresses"]]

    on_tls(authority, scenario, {})


def test_nothing_is_said_about_tls_unless_it_is_asked_for(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        answer = await asyncio.to_thread(get, f"{base}/health/live", trusting(authority))
        assert "strict-transport-security" not in answer.headers

    on_tls(authority, scenario, {})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_versions_that_are_broken_are_refused(authority: Authority, version: ssl.TLSVersion) -> None:
    """Source: RFC 8996."""

    async def scenario(cell: RunningCell, base: str) -> None:
        context = trusting(authority)
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(OSError, match=r"(?i)protocol|handshake|alert|internal|version|eof|reset"):
            await asyncio.to_thread(get, f"{base}/health/live", context)

    with pytest.warns(DeprecationWarning, match="TLS"):
        on_tls(authority, scenario, {})


@pytest.mark.parametrize(
    "sent", [b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 99, b"\0"]
)
def test_what_is_no_tls_ends_its_connection_and_nothing_else(authority: Authority, sent: bytes) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.gateway.port)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert b"HTTP" not in await reader.read()
        writer.close()
        assert (await asyncio.to_thread(get, f"{base}/health/live", trusting(authority))).status == 200

    on_tls(authority, scenario, {})


def test_a_handshake_that_is_never_finished_is_given_up(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)

    async def scenario(cell: RunningCell, base: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.gateway.port)
        writer.write(b"\x16\x03\x01")
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        writer.close()

    on_tls(authority, scenario, {}, gateway={"header_timeout": 0.3})


def test_a_refusal_that_ends_its_connection_is_read_over_tls_too(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.gateway.port, ssl=trusting(authority))
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: x\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()

    on_tls(authority, scenario, {})


def test_sockets_and_streams_are_served_over_tls_too(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        context = trusting(authority)
        address = f"{base.replace('https', 'wss')}/mcp/ws"
        async with websockets.connect(address, ssl=context, subprotocols=[Subprotocol("mcp")], open_timeout=10) as connection:
            await connection.send(PING.decode())
            async with asyncio.timeout(10):
                assert json.loads(await connection.recv())["id"] == 1
        reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.gateway.port, ssl=context)
        writer.write(b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        async with asyncio.timeout(10):
            assert b"event: endpoint" in await reader.readuntil(b"data: ")
        writer.close()

    on_tls(authority, scenario, {})


# ---- certificates that change


def serial_at(port: int, authority: Authority) -> int:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        trusting(authority).wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def test_a_new_certificate_is_shown_to_new_connections_and_those_that_are_open_stay(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_SWEEP_S", 0.05)

    async def scenario(cell: RunningCell, base: str) -> None:
        port = cell.settings.gateway.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority))
        before = await asyncio.to_thread(serial_at, port, authority)
        authority.certify("server")
        async with asyncio.timeout(10):
            while await asyncio.to_thread(serial_at, port, authority) == before:
                await asyncio.sleep(0.05)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()

    on_tls(authority, scenario, {})


def test_files_that_cannot_be_used_leave_the_context_that_could(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    certificate, key = authority.certify("server")
    tls = ServerTls(TlsSettings(certificate=str(certificate), key=str(key)))
    first, right = tls.context, key.read_bytes()
    assert not tls.refresh()
    key.write_bytes(b"half a k")
    for _ in range(3):
        assert not tls.refresh()
    assert tls.context is first
    assert len([record for record in caplog.records if "is used further" in record.message]) == 1
    key.unlink()
    assert not tls.refresh()
    key.write_bytes(right)
    assert tls.refresh()
    assert tls.context is not first
    assert not tls.refresh()


@pytest.mark.parametrize("fault", ["no certificate", "no key", "another key", "a passphrase", "no authority", "no PEM"])
def test_files_that_cannot_be_used_at_the_start_are_named(authority: Authority, fault: str) -> None:
    certificate, key = authority.certify("server")
    client_ca = str(authority.path) if fault != "no authority" else "/nowhere.pem"
    if fault == "no certificate":
        certificate.unlink()
    elif fault == "no key":
        key.unlink()
    elif fault == "another key":
        key.write_bytes(authority.certify("other")[1].read_bytes())
    elif fault == "a passphrase":
        secret = ec.generate_private_key(ec.SECP256R1())
        encrypted = serialization.BestAvailableEncryption(b"x")
        key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encrypted))
    elif fault == "no PEM":
        certificate.write_bytes(os.urandom(100))
    with pytest.raises(TlsUnusableError, match=r"server|nowhere"):
        ServerTls(TlsSettings(certificate=str(certificate), key=str(key), client_ca=client_ca))


# ---- clients with certificates

CERTIFIED = {"mode": "required", "client_certificates": True}


async def who(cell: RunningCell, base: str, context: ssl.SSLContext) -> int:
    return (await asyncio.to_thread(get, f"{base}/mcp", context, PING)).status


def test_a_client_is_known_by_its_certificate(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        certificate = authority.certify("alice", *ALICE)
        with_one, without = trusting(authority, certificate), trusting(authority)
        assert await who(cell, base, without) == 401
        assert await who(cell, base, with_one) not in (401, 403)
        authenticator = cell.cell._port.known_clients
        assert authenticator is not None
        (known,) = authenticator._known._known.values()
        assert known.principal.key == "certificate CN=alice,O=Example\\, Inc."

    on_tls(authority, scenario, {"client_ca": str(authority.path)}, auth=CERTIFIED)


def test_a_certificate_of_another_authority_is_refused_and_so_is_one_that_has_ended(authority: Authority, tmp_path: Path) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        (tmp_path / "other").mkdir()
        stranger = Authority(tmp_path / "other").certify("alice", *ALICE)
        expired = authority.certify("late", *ALICE, days=-1)
        for certificate in (stranger, expired):
            with pytest.raises(OSError, match=r"(?i)unknown ca|expired|alert|reset|eof|protocol"):
                await who(cell, base, trusting(authority, certificate))

    on_tls(authority, scenario, {"client_ca": str(authority.path)}, auth=CERTIFIED)


def test_nobody_without_a_certificate_is_spoken_to_where_each_must_have_one(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        with pytest.raises(OSError, match=r"(?i)required|alert|reset|eof|protocol"):
            await who(cell, base, trusting(authority))
        certificate = authority.certify("alice", *ALICE)
        answer = await asyncio.to_thread(get, f"{base}/health/live", trusting(authority, certificate))
        assert answer.status == 200

    on_tls(authority, scenario, {"client_ca": str(authority.path), "client_required": True})


def test_a_token_that_is_bound_to_a_certificate_is_good_with_that_one_only(authority: Authority, tmp_path: Path) -> None:
    """Source: RFC 8705, section 3."""
    (tmp_path / "keys.json").write_bytes(jwks(KEY))
    certificates = {name: authority.certify(name) for name in ("alice", "bob")}
    der = x509.load_pem_x509_certificate(certificates["alice"][0].read_bytes()).public_bytes(serialization.Encoding.DER)
    thumbprint = base64url(hashlib.sha256(der).digest())
    bound, free = KEY.token({"cnf": {"x5t#S256": thumbprint}}), KEY.token()

    async def scenario(cell: RunningCell, base: str) -> None:
        async def read(token: str, name: str = "") -> int:
            context = trusting(authority, certificates.get(name))
            return (await asyncio.to_thread(get, f"{base}/mcp", context, PING, {"Authorization": f"Bearer {token}"})).status

        for _ in range(2):  # not remembered as good for whoever shows it next
            assert await read(bound, "alice") not in (401, 403)
            assert await read(bound, "bob") == 401
            assert await read(bound) == 401
        assert await read(free) not in (401, 403)
        for wrong in ({}, {"x5t#S256": ""}, {"x5t#S256": thumbprint, "jkt": "x"}, {"x5t": thumbprint}, thumbprint, None):
            assert await read(KEY.token({"cnf": wrong or {}}), "alice") == 401, wrong
        described = await asyncio.to_thread(get, f"{base}/.well-known/oauth-protected-resource/mcp", trusting(authority))
        assert json.loads(described.body)["tls_client_certificate_bound_access_tokens"] is True

    auth = {"issuers": [{"issuer": ISSUER, "jwks_file": str(tmp_path / "keys.json")}]}
    on_tls(authority, scenario, {"client_ca": str(authority.path)}, auth=auth, gateway={"public_url": PUBLIC_URL})


def test_what_a_proxy_shows_of_itself_binds_no_token_of_its_clients(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(KEY))
    certificate = authority.certify("proxy")
    der = x509.load_pem_x509_certificate(certificate[0].read_bytes()).public_bytes(serialization.Encoding.DER)
    bound = KEY.token({"cnf": {"x5t#S256": base64url(hashlib.sha256(der).digest())}})

    async def scenario(cell: RunningCell, base: str) -> None:
        shown = {"Authorization": f"Bearer {bound}"}
        context = trusting(authority, certificate)
        assert (await asyncio.to_thread(get, f"{base}/mcp", context, PING, shown)).status == 401

    auth = {"issuers": [{"issuer": ISSUER, "jwks_file": str(tmp_path / "keys.json")}]}
    gateway = {"public_url": PUBLIC_URL, "trusted_proxies": ["127.0.0.1"]}
    on_tls(authority, scenario, {"client_ca": str(authority.path)}, auth=auth, gateway=gateway)


def test_a_stream_ends_with_the_certificate_that_opened_it(authority: Authority) -> None:
    async def scenario(cell: RunningCell, base: str) -> None:
        context = trusting(authority, authority.certify("alice", *ALICE))
        assert await who(cell, base, context) not in (401, 403)
        known = cell.cell._port.known_clients
        assert known is not None
        ((principal, _),) = [(each.principal, each.until_ms) for each in known._known._known.values()]
        assert abs(principal.expires_ms - (time.time() + 86_400) * 1000) < 120_000
        over = Credential(kind=CredentialKind.CERTIFICATE, value=principal.subject, expires_ms=int(time.time() * 1000))
        with pytest.raises(LogInRefused, match="expired"):
            await known.authenticate(over)

    on_tls(authority, scenario, {"client_ca": str(authority.path)}, auth=CERTIFIED)


def test_a_certificate_that_its_authority_has_taken_back_opens_nothing(authority: Authority) -> None:
    """The list is read again as it changes; one that has expired is no word on anybody, so nobody is let in."""
    alice, bob = authority.certify("alice", *ALICE), authority.certify("bob")
    crl = authority.revoke(bob[0])

    async def scenario(cell: RunningCell, base: str) -> None:
        async def opens(certificate: tuple[Path, Path] | None) -> bool:
            try:
                return await who(cell, base, trusting(authority, certificate)) != 401
            except OSError:  # of the handshake
                return False

        async def until(certificate: tuple[Path, Path], expected: bool) -> None:
            async with asyncio.timeout(10):
                while await opens(certificate) != expected:
                    await asyncio.sleep(0.05)

        assert [await opens(each) for each in (alice, bob, None)] == [True, False, False]
        authority.revoke(alice[0])
        await until(alice, False)
        await until(bob, True)
        authority.revoke(hours=-1)
        await until(bob, False)

    on_tls(authority, scenario, {"client_ca": str(authority.path), "client_crl": str(crl)}, auth=CERTIFIED)


def test_what_a_certificate_has_opened_ends_when_its_authority_takes_it_back(authority: Authority) -> None:
    """A socket and a stream of each, after the list was written anew; nobody else's end."""
    certificates = {name: authority.certify(name) for name in ("alice", "bob")}
    crl = authority.revoke()

    async def scenario(cell: RunningCell, base: str) -> None:
        address = f"{base.replace('https:', 'wss:')}/mcp/ws"
        async with AsyncExitStack() as stack:
            sockets, streams = {}, {}
            for name, certificate in certificates.items():
                context = trusting(authority, certificate)
                opened = websockets.connect(address, ssl=context, subprotocols=[Subprotocol("mcp")], open_timeout=10)
                sockets[name] = await stack.enter_async_context(opened)
                http = await stack.enter_async_context(aiohttp.ClientSession())
                streams[name] = await stack.enter_async_context(http.get(f"{base}/sse", ssl=context))
                assert streams[name].status == 200
            authority.revoke(certificates["alice"][0])
            async with asyncio.timeout(10):
                await sockets["alice"].wait_closed()
                with suppress(aiohttp.ClientError):
                    while await streams["alice"].content.readany():
                        pass
            await (await sockets["bob"].ping())
            assert not streams["bob"].content.at_eof()

    on_tls(authority, scenario, {"client_ca": str(authority.path), "client_crl": str(crl)}, auth=CERTIFIED)


def test_a_client_that_shakes_hands_by_the_list_of_before_has_to_begin_anew(authority: Authority) -> None:
    crl = authority.revoke()

    async def scenario(cell: RunningCell, base: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", cell.settings.gateway.port)
        try:
            await who(cell, base, trusting(authority))  # by now the other one is accepted
            authority.revoke(authority.certify("alice")[0])
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        finally:
            writer.close()

    on_tls(authority, scenario, {"client_ca": str(authority.path), "client_crl": str(crl)}, auth=CERTIFIED)


@pytest.mark.parametrize("listed", [(0,), (1,), (0, 1)])
def test_a_file_of_several_lists_takes_back_what_any_of_them_names(tmp_path: Path, listed: tuple[int, ...]) -> None:
    authority = Authority(tmp_path)
    certificates = [authority.certify(name)[0] for name in ("alice", "bob")]
    crl = authority.revoke()
    lists = [authority.revoke(certificates[index]).read_bytes() for index in listed]
    crl.write_bytes(b"".join(lists))
    server, key = authority.certify("server")
    tls = ServerTls(TlsSettings(certificate=str(server), key=str(key), client_ca=str(authority.path), client_crl=str(crl)))
    numbers = [x509.load_pem_x509_certificate(path.read_bytes()).serial_number for path in certificates]
    assert {numbers.index(number) for _, number in tls._revoked} == set(listed)


@pytest.mark.parametrize("content", [b"", b"no list", None])
def test_a_list_that_is_none_is_no_list_that_names_nobody(authority: Authority, content: bytes | None) -> None:
    certificate, key = authority.certify("server")
    crl = authority.directory / "crl.pem"
    if content is not None:
        crl.write_bytes(content)
    settings = TlsSettings(certificate=str(certificate), key=str(key), client_ca=str(authority.path), client_crl=str(crl))
    with pytest.raises(TlsUnusableError, match="client_crl"):
        ServerTls(settings)
