"""A gateway that shows its own token to servers behind connections that all its clients share."""

from __future__ import annotations

import pytest

from tests.doubles.oauth_server import LegacyClient, OauthServer, text_of
from tests.doubles.running_cell import cell_settings, running_cell
from tests.end_to_end.test_user_credentials import on_loop


@pytest.mark.parametrize(("scheme", "path"), [("sse+http", "/sse"), ("ws", "/ws")])
def test_a_call_goes_through_and_one_after_the_token_was_taken_back_does_with_a_fresh_one(scheme: str, path: str) -> None:
    """A WebSocket shows its token once: what is taken back later is the server's to act on, by closing it."""

    async def body(server: OauthServer) -> None:
        files = {
            "name": "files",
            "prefix": "",
            "replicas": [f"{scheme}{server.url.removeprefix('http')}{path}"],
            "auth": "client_credentials",
            "client_id": "gw",
            "token_url": f"{server.url}/token",
            "resource": server.mcp_url,
            "scopes": ["read"],
            "allow_private": True,
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
