"""A gateway that shows its own token to servers behind connections that all its clients share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.doubles.certificates import Authority
from tests.doubles.grpc_guard import WantsToken
from tests.doubles.grpc_mcp_server import grpc_mcp_server
from tests.doubles.grpc_shop import grpc_shop
from tests.doubles.oauth_server import LegacyClient, OauthServer, text_of
from tests.doubles.pet_api import PETSTORE
from tests.doubles.running_cell import cell_settings, running_cell
from tests.end_to_end.test_user_credentials import on_loop


def own_token(server: OauthServer) -> dict[str, Any]:
    """Of a backend that is shown the gateway itself."""
    return {
        "auth": "client_credentials",
        "client_id": "gw",
        "token_url": f"{server.url}/token",
        "resource": server.mcp_url,
        "scopes": ["read"],
        "allow_private": True,
    }


@pytest.mark.parametrize(("scheme", "path"), [("sse+http", "/sse"), ("ws", "/ws")])
def test_a_call_goes_through_and_one_after_the_token_was_taken_back_does_with_a_fresh_one(scheme: str, path: str) -> None:
    """A WebSocket shows its token once: what is taken back later is the server's to act on, by closing it."""

    async def body(server: OauthServer) -> None:
        files = {
            "name": "files",
            "prefix": "",
            "replicas": [f"{scheme}{server.url.removeprefix('http')}{path}"],
            **own_token(server),
        }
        async with running_cell(cell_settings([files])) as cell:
            client = LegacyClient(f"{cell.url}/mcp")
            try:
                await client.open()
                assert text_of(await client.call()) == "the gateway"
                first = set(server.seen_authorizations)
                server.revoke()
                if path == "/ws":
                    await server.close_sockets()
                assert text_of(await client.call()) == "the gateway"
            finally:
                await client.close()
        assert len(first) == 1
        assert len(set(server.seen_authorizations)) == 2
        assert server.count("/token") == 2

    on_loop(body)


def test_an_http_api_is_shown_it_at_its_configured_address_and_a_fresh_one_once_it_was_taken_back() -> None:
    async def body(server: OauthServer) -> None:
        pets = {"name": "pets", "prefix": "", "openapi": str(PETSTORE), "base_url": f"{server.url}/v1", **own_token(server)}
        async with running_cell(cell_settings([pets])) as cell:
            client = LegacyClient(f"{cell.url}/mcp")
            try:
                await client.open()
                for _ in range(2):
                    answer = await client.ask("tools/call", {"name": "listPets", "arguments": {}})
                    assert answer["result"]["structuredContent"] == {"result": [{"id": 1, "name": "the gateway"}]}
                    server.revoke()
                server.scopes_needed = ("write",)
                refused = await client.ask("tools/call", {"name": "listPets", "arguments": {}})
                assert refused["error"]["data"]["reason"] == "forbidden"
            finally:
                await client.close()
        assert server.count("/token") >= 2

    on_loop(body)


@pytest.mark.parametrize("kind", ["replicas", "grpc"])
def test_a_grpc_server_is_shown_it_and_the_gateways_certificate(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS, by an authority of one's own: a server of MCP's own proto, and one whose methods are tools."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    certificate, key = (path.read_bytes() for path in authority.certify("server"))
    wanting = grpc.ssl_server_credentials([(key, certificate)], authority.path.read_bytes(), require_client_auth=True)
    files = dict(zip(("client_certificate", "client_key"), map(str, authority.certify("gateway")), strict=True))

    async def body(server: OauthServer) -> None:
        wants = WantsToken(lambda token: token in server.tokens)
        started = grpc_mcp_server if kind == "replicas" else grpc_shop
        with started(credentials=wanting, interceptors=[wants]) as behind:
            where = [f"grpcs://{behind.address}"] if kind == "replicas" else f"https://{behind.address}"
            backend = {"name": "files", "prefix": "", kind: where, **files, **own_token(server)}
            async with running_cell(cell_settings([backend])) as cell:
                client = LegacyClient(f"{cell.url}/mcp")
                try:
                    await client.open()
                    for _ in range(2):
                        if kind == "replicas":
                            answer = await client.ask("tools/call", {"name": "echo", "arguments": {"text": "é"}})
                            assert text_of(answer) == "é"
                        else:
                            answer = await client.ask("tools/call", {"name": "Catalog_Find", "arguments": {"limit": 1}})
                            assert answer["result"]["structuredContent"]["count"] == 1
                        server.revoke()
                finally:
                    await client.close()
        assert len(set(wants.seen) - {""}) == 2

    on_loop(body)
