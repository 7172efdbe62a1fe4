"""A server of the official SDK that wants OAuth, oidc-provider as its issuer, and the gateway in between as users run it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mcp_gateway.scripts.command_line import main
from tests.doubles.identity_provider import SECRET, IdentityProvider, identity_provider
from tests.doubles.oauth_server import LegacyClient, ModernClient, a_browser, consent_url, text_of
from tests.doubles.ports import free_port
from tests.doubles.sdk_server import SdkServer
from tests.end_to_end.running_gateway import Form, start_gateway

_KEY = "ann-key"
_AUTH = {"api_keys": [{"name": "ann", "hash": f"sha256:{hashlib.sha256(_KEY.encode()).hexdigest()}"}]}


@pytest.fixture(scope="module", name="provider")
def provider_fixture() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


@contextmanager
def sdk_server(provider: IdentityProvider) -> Iterator[SdkServer]:
    server = SdkServer("files", ["--issuer", provider.issuer], "/mcp", "tests.doubles.oauth_sdk_server")
    server.start()
    try:
        yield server
    finally:
        server.stop()


def backend(server: SdkServer, **settings: Any) -> dict[str, Any]:
    return {"name": "files", "prefix": "", "replicas": [server.url], "allow_private": True, **settings}


async def used(url: str, token: str, *, consents: bool) -> str:
    """What the tool says; consents: whether the user is asked first."""
    client = LegacyClient(f"{url}/mcp", token)
    try:
        await client.open()
        if consents:
            async with a_browser() as browser:
                status, page = await browser.consent(consent_url(await client.call()))
                assert status == 200, page
        return text_of(await client.call())
    finally:
        await client.close()


@pytest.mark.node_js
@pytest.mark.timeout(120)
@pytest.mark.parametrize("form", ["embedded", "two cells"])
def test_a_user_consents_once_is_logged_in_after_a_restart_and_asked_anew_once_deleted(
    form: Form, provider: IdentityProvider, tmp_path: Path
) -> None:
    own = {"port": free_port()}
    with sdk_server(provider) as server:
        backends = [backend(server, auth="user")]
        # 1. The first call asks, the second goes through; in two cells each request may come to either.
        with start_gateway(tmp_path, form, backends, gateway=own, auth=_AUTH) as gateway:
            assert asyncio.run(used(gateway.url, _KEY, consents=True)) == "alice"
            for _ in range(6):
                assert asyncio.run(used(gateway.url, _KEY, consents=False)) == "alice"
        # 2. After a restart the user is logged in, under a new key as well.
        state = str(tmp_path / "state")
        assert main(["credentials", "rotate", "--state-dir", state]) == 0
        with start_gateway(tmp_path, form, backends, gateway=own, auth=_AUTH) as gateway:
            assert asyncio.run(used(gateway.url, _KEY, consents=False)) == "alice"
            # 3. What an operator deletes is gone in every cell at once.
            assert main(["credentials", "delete", "--subject", "ann", "--state-dir", state]) == 0
            assert asyncio.run(used(gateway.url, _KEY, consents=True)) == "alice"


@pytest.mark.node_js
@pytest.mark.timeout(120)
def test_a_client_of_the_newest_revision_is_asked_at_a_server_of_the_newest_revision(
    provider: IdentityProvider, tmp_path: Path
) -> None:
    async def body(url: str) -> None:
        client = ModernClient(f"{url}/mcp", _KEY)
        try:
            asked = (await client.call())["result"]
            (entry,) = asked["inputRequests"].values()
            async with a_browser() as browser:
                status, page = await browser.consent(entry["params"]["url"])
                assert status == 200, page
            assert [text_of(await client.call()) for _ in range(4)] == ["alice"] * 4
        finally:
            await client.close()

    with (
        sdk_server(provider) as server,
        start_gateway(tmp_path, "two cells", [backend(server, auth="user")], auth=_AUTH) as gateway,
    ):
        asyncio.run(body(gateway.url))


@pytest.mark.node_js
@pytest.mark.timeout(120)
def test_the_gateways_own_token_and_one_that_a_clients_is_exchanged_for(provider: IdentityProvider, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    known = {"client_secret_file": str(secret), "scopes": ["files:read"]}
    (tmp_path / "gateway").mkdir()
    with sdk_server(provider) as server:
        backends = [
            backend(server, auth="client_credentials", client_id="service", issuer=provider.issuer, **known)
            | {"name": "own", "prefix": "own__"},
            backend(server, auth="token_exchange", client_id="exchanger", token_url=f"{provider.issuer}/token", **known)
            | {"name": "theirs", "prefix": "theirs__"},
        ]
        audience = "http://127.0.0.1/mcp"
        issuer = {"issuer": provider.issuer, "audience": [audience], "allow_private": True}
        with start_gateway(tmp_path / "gateway", "two cells", backends, auth={"issuers": [issuer]}) as gateway:
            token = provider.user_token("bob", audience)

            async def both() -> list[str]:
                client = LegacyClient(f"{gateway.url}/mcp", token)
                try:
                    await client.open()
                    return [text_of(await client.call(f"{name}__whoami")) for name in ("own", "theirs", "own", "theirs")]
                finally:
                    await client.close()

            assert asyncio.run(both()) == ["service", "bob", "service", "bob"]
