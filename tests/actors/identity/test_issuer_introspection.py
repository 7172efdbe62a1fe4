"""Questions about opaque tokens: to an issuer that the test plays, and to oidc-provider through a whole cell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from mcp_gateway.actors.identity import issuer_introspection
from mcp_gateway.actors.identity.issuer_away import IssuerAwayError
from mcp_gateway.actors.identity.issuer_introspection import MOST_AT_ONCE, IssuerIntrospection
from mcp_gateway.config.identity_settings import IssuerSettings
from mcp_gateway.transports.identity.claims import audience_of
from mcp_gateway.transports.identity.rejection import CredentialRejected
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from tests.doubles.identity_provider import SECRET, IdentityProvider, identity_provider
from tests.doubles.running_cell import cell_settings, running_cell
from tests.doubles.tokens import PUBLIC_URL, right_claims

HERE = f"{PUBLIC_URL}/mcp"


@attrs.define
class Answering:
    """An introspection endpoint with one answer for all, given when `is_open` is set."""

    status: int = 200
    body: bytes = b'{"active": false}'
    asked: list[bytes] = attrs.field(factory=list)
    is_open: asyncio.Event = attrs.field(factory=asyncio.Event)
    url: str = ""

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        self.asked.append(head + await reader.readexactly(length))
        await self.is_open.wait()
        head = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (self.status, len(self.body))
        writer.write(head + self.body)
        writer.close()

    def settings(self, **more: Any) -> IssuerSettings:
        return IssuerSettings(issuer=self.url, introspection_url=f"{self.url}/introspect", allow_private=True, **more)


@asynccontextmanager
async def answering() -> AsyncIterator[Answering]:
    endpoint = Answering()
    endpoint.is_open.set()
    server = await asyncio.start_server(endpoint.converse, "127.0.0.1", 0)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield endpoint
    finally:
        server.close()


def test_the_issuer_is_asked_with_the_secret_as_it_is_now(tmp_path: Path) -> None:
    secret = tmp_path / "secret"

    async def body() -> None:
        async with answering() as endpoint:
            endpoint.body = json.dumps({"active": True, **right_claims(), "iss": endpoint.url}).encode()
            settings = endpoint.settings(client_id="gw", client_secret_file=str(secret))
            introspection = IssuerIntrospection(settings)
            audience = audience_of(settings, PUBLIC_URL)
            with pytest.raises(IssuerAwayError, match="No such file"):
                await introspection.principal_of(b"opaque", audience)
            secret.write_text("x\n")
            assert (await introspection.principal_of(b"opaque", audience)).subject == "alice"
            assert b"Authorization: Basic Z3c6eA==\r\n" in endpoint.asked[0]
            assert b"token=opaque" in endpoint.asked[0]

    asyncio.run(body())


def test_an_inactive_token_is_rejected_and_a_failure_is_none() -> None:
    async def body() -> None:
        async with answering() as endpoint:
            settings = endpoint.settings()
            introspection, audience = IssuerIntrospection(settings), audience_of(settings, PUBLIC_URL)
            with pytest.raises(CredentialRejected):
                await introspection.principal_of(b"opaque", audience)
            endpoint.status = 401
            with pytest.raises(IssuerAwayError, match="status 401"):
                await introspection.principal_of(b"opaque", audience)

    asyncio.run(body())


def test_no_more_tokens_than_the_limit_are_asked_about_at_once_and_more_wait_for_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issuer_introspection, "_QUEUE_S", 0.05)

    async def body() -> None:
        async with answering() as endpoint:
            endpoint.is_open.clear()
            settings = endpoint.settings()
            introspection, audience = IssuerIntrospection(settings), audience_of(settings, PUBLIC_URL)
            asking = [asyncio.ensure_future(introspection.principal_of(b"%d" % n, audience)) for n in range(MOST_AT_ONCE)]
            async with asyncio.timeout(20):
                while len(endpoint.asked) < MOST_AT_ONCE:
                    await asyncio.sleep(0.01)
            with pytest.raises(IssuerAwayError, match="too many"):
                await introspection.principal_of(b"more", audience)
            monkeypatch.setattr(issuer_introspection, "_QUEUE_S", 20.0)
            asking.append(asyncio.ensure_future(introspection.principal_of(b"one that waits for its turn", audience)))
            await asyncio.sleep(0)
            endpoint.is_open.set()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {CredentialRejected}
            with pytest.raises(CredentialRejected):
                await introspection.principal_of(b"more", audience)

    asyncio.run(body())


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


@pytest.mark.node_js
def test_a_cell_knows_opaque_tokens_and_jwts_of_a_real_provider(provider: IdentityProvider, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    issuer = {
        "issuer": provider.issuer,
        "introspection_url": f"{provider.issuer}/token/introspection",
        "client_id": "gateway",
        "client_secret_file": str(tmp_path / "secret"),
        "allow_private": True,
    }

    async def body() -> None:
        async with running_cell(cell_settings(auth={"issuers": [issuer]}, gateway={"public_url": PUBLIC_URL})) as cell:
            authenticator = cell.cell._port.authenticator
            assert authenticator is not None

            async def subject_of(token: str) -> str:
                try:
                    return (await authenticator.authenticate(Credential(kind=CredentialKind.BEARER, value=token))).subject
                except Refused as refused:
                    return refused.reason

            async def ask(work: Any, *arguments: Any, **named: Any) -> Any:
                return await asyncio.to_thread(work, *arguments, **named)

            opaque = await ask(provider.token, HERE, client="opaque-service")
            assert await subject_of(opaque) == "opaque-service"
            assert await subject_of(await ask(provider.token, HERE)) == "service"
            person = await ask(provider.user_token, "bob", HERE)
            assert await subject_of(person) == "bob"
            assert await subject_of(await ask(provider.exchanged, person, "https://other.example")) == "unauthorized"
            elsewhere = await ask(provider.token, "https://other.example", client="opaque-service")
            assert await subject_of(elsewhere) == "unauthorized"
            assert await subject_of("made-up") == "unauthorized"
            revoked = await ask(provider.token, HERE, client="opaque-service")
            await ask(provider.revoke, revoked, "opaque-service")
            assert await subject_of(revoked) == "unauthorized"

    asyncio.run(body())


@pytest.mark.node_js
def test_a_new_key_of_a_real_provider_is_found(
    provider: IdentityProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_gateway.transports.identity.jwks.FLOOR_S", 0.0)
    issuer = {"issuer": provider.issuer, "allow_private": True}

    async def body() -> None:
        async with running_cell(cell_settings(auth={"issuers": [issuer]}, gateway={"public_url": PUBLIC_URL})) as cell:
            authenticator = cell.cell._port.authenticator
            assert authenticator is not None
            for _ in range(2):
                token = await asyncio.to_thread(provider.token, HERE)
                credential = Credential(kind=CredentialKind.BEARER, value=token)
                assert (await authenticator.authenticate(credential)).subject == "service"
                await asyncio.to_thread(provider.rotate_keys)

    asyncio.run(body())
