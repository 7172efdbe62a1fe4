from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.grpc.grpc_channel import connect, metadata_of, open_channel
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
