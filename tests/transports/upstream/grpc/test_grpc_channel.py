from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from mcp_grpc_transport_proto import mcp_messages_pb2 as proto

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.grpc.grpc_channel import (
    ServerChannel,
    connect,
    credential_refused,
    metadata_of,
    open_channel,
)
from tests.doubles.certificates import Authority
from tests.doubles.grpc_mcp_server import GrpcMcpServer, grpc_mcp_server
from tests.doubles.ports import free_port
from tests.doubles.tls_relay import self_signed


async def connecting(address: str, timeout_s: float | None, *, is_secure: bool = False) -> None:
    channel = open_channel(address, 10_000, is_secure=is_secure)
    try:
        await connect(channel, timeout_s)
    finally:
        await channel.close()


def test_nobody_there_is_told_at_once_and_nothing_was_sent() -> None:
    with pytest.raises(UpstreamError, match="no connection") as raised:
        asyncio.run(connecting(f"127.0.0.1:{free_port()}", 30.0))
    assert raised.value.fate is Fate.UNREACHABLE


def test_a_server_that_does_not_answer_the_handshake_is_not_waited_for() -> None:
    async def scene() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        async with server:
            with pytest.raises(UpstreamError, match="no connection in time"):
                await connecting(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 0.3)

    asyncio.run(scene())


def test_tls_is_trusted_as_every_other_connection_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = self_signed(tmp_path)
    shown = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with grpc_mcp_server(GrpcMcpServer(), shown) as server:
        address = server.address.replace("127.0.0.1", "localhost")
        with pytest.raises(UpstreamError, match="no connection"):
            asyncio.run(connecting(address, 20.0, is_secure=True))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        asyncio.run(connecting(address, 20.0, is_secure=True))


@pytest.fixture(name="authority")
def authority_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Trusted by what is made in this test."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


@contextmanager
def server_of(authority: Authority) -> Iterator[GrpcMcpServer]:
    """It wants certificates of its clients."""
    certificate, key = (path.read_bytes() for path in authority.certify("server"))
    wanting = grpc.ssl_server_credentials([(key, certificate)], authority.path.read_bytes(), require_client_auth=True)
    with grpc_mcp_server(GrpcMcpServer(), wanting) as server:
        yield server


async def with_channel(server: GrpcMcpServer, use: Callable[[ServerChannel], Awaitable[None]], **shown: str) -> None:
    backend = BackendSettings(name="it", replicas=[f"grpcs://{server.address}"], **shown)
    channel = ServerChannel(backend, server.address, 10_000, is_secure=True)
    try:
        await asyncio.wait_for(use(channel), 60)
    finally:
        await channel.close()


def test_a_server_that_wants_a_certificate_is_shown_the_one_of_now(authority: Authority) -> None:
    files = dict(zip(("client_certificate", "client_key"), map(str, authority.certify("gateway")), strict=True))

    async def call(channel: ServerChannel) -> None:
        await (await channel.connected()).unary_unary("/model_context_protocol.Mcp/ListTools")(b"")

    async def twice(channel: ServerChannel) -> None:
        for _ in range(2):
            await call(channel)
            await call(channel)
            authority.certify("gateway")

    with server_of(authority) as server:
        asyncio.run(with_channel(server, twice, **files))
        assert len(server.certificates) == 4
        assert len(set(server.certificates)) == 2
        with pytest.raises((UpstreamError, grpc.aio.AioRpcError)):
            asyncio.run(with_channel(server, call))
        assert len(server.certificates) == 4, "a client without one got in"


def test_a_call_under_way_ends_over_the_certificate_with_which_it_began(authority: Authority) -> None:
    files = dict(zip(("client_certificate", "client_key"), map(str, authority.certify("gateway")), strict=True))
    asked = proto.CallToolRequest(request=proto.CallToolRequest.Request(name="stuck")).SerializeToString()

    async def scene(channel: ServerChannel) -> None:
        call = (await channel.connected()).unary_unary("/model_context_protocol.Mcp/CallTool")(asked)
        while not server.metadata:
            await asyncio.sleep(0.01)
        authority.certify("gateway")
        assert await channel.connected() is channel.current()
        server.cancelled.set()
        assert await call

    with server_of(authority) as server:
        asyncio.run(with_channel(server, scene, **files))


def test_files_that_cannot_be_used_are_no_connection_and_may_be_mended(authority: Authority) -> None:
    certificate, key = authority.certify("gateway")
    content = key.read_bytes()

    async def scene(channel: ServerChannel) -> None:
        for broken in (b"no key", None):
            key.unlink() if broken is None else key.write_bytes(broken)
            with pytest.raises(UpstreamError, match="the certificate of the gateway cannot be used") as raised:
                await channel.connected()
            assert raised.value.fate is Fate.UNREACHABLE
        key.write_bytes(content)
        await channel.connected()

    with server_of(authority) as server:
        asyncio.run(with_channel(server, scene, client_certificate=str(certificate), client_key=str(key)))


@pytest.mark.parametrize(
    ("code", "challenge", "status"),
    [
        ("UNAUTHENTICATED", "", 401),
        ("PERMISSION_DENIED", 'Bearer error="insufficient_scope", scope="write"', 403),
        ("PERMISSION_DENIED", "", 0),
        ("UNAVAILABLE", 'Bearer error="insufficient_scope"', 0),
    ],
)
def test_what_a_server_says_of_a_token_is_told_as_over_http(code: str, challenge: str, status: int) -> None:
    trailers = grpc.aio.Metadata(*([("www-authenticate", challenge)] if challenge else []), ("x-bin", b"1"))
    refused = credential_refused(grpc.aio.AioRpcError(grpc.StatusCode[code], grpc.aio.Metadata(), trailers))
    assert (refused.status if refused else 0) == status
    assert refused is None or refused.headers == ({"www-authenticate": challenge} if challenge else {})


def test_names_of_headers_are_in_lower_case() -> None:
    assert metadata_of({"X-Key": "V"}) == [("x-key", "V")]


@pytest.mark.parametrize("value", ["\xff", "a\tb", "\x7f"])
def test_a_header_of_a_client_that_grpc_cannot_carry_is_left_out_and_fails_no_call(value: str) -> None:
    async def scene() -> None:
        with grpc_mcp_server() as server:
            channel = open_channel(server.address, 10_000, is_secure=False)
            headers = metadata_of({"baggage": value, "tracestate": "a=1"})
            await channel.unary_unary("/model_context_protocol.Mcp/ListTools")(b"", metadata=headers)
            await channel.close()
            assert server.metadata[-1]["tracestate"] == "a=1"
            assert "baggage" not in server.metadata[-1]

    asyncio.run(scene())
