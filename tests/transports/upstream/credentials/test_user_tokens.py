"""What users have consented to: shown, renewed once, and asked for anew where it is gone."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from mcp_gateway.transports.ports.consents import ConsentFailed
from mcp_gateway.transports.ports.credential_vault import CredentialVault, EntryId, VaultFailed
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import Asker
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.upstream.credentials.challenge import Challenge
from mcp_gateway.transports.upstream.credentials.memory_vault import MemoryVault
from mcp_gateway.transports.upstream.credentials.tokens import Tokens
from mcp_gateway.transports.upstream.credentials.user_tokens import ConsentSite, UserTokens
from tests.doubles.patience import on_loop
from tests.transports.upstream.credentials.scripted_servers import ISSUER, SERVER, ScriptedFetch, away, backend, servers

ANN, BOB = Asker("iss ann"), Asker("iss bob")
BASE = "https://mcp.example"
TOKEN, METADATA = f"{ISSUER}/token", f"{ISSUER}/.well-known/oauth-authorization-server"
UNKNOWN = Challenge(status=401)


class Cell:
    """One cell of a node: what all share is the vault and the seal."""

    def __init__(self, vault: CredentialVault, base: str = BASE, **settings: Any) -> None:
        self.fetch = ScriptedFetch()
        self.site = ConsentSite(lambda: vault, Seal(b"0" * 32), base, tells_users_apart=True)
        self.tokens = UserTokens(backend(**settings), servers(self.fetch, **settings), self.site)
        self.site.backends["files"] = self.tokens

    async def link(self, asker: Asker = ANN, challenge: Challenge = UNKNOWN, refused: Tokens | None = None) -> str:
        with pytest.raises(UpstreamError) as raised:
            await self.tokens.another(asker, refused, challenge)
        failure = raised.value.failure
        assert (failure.fate, failure.reason) == (Fate.UNAUTHORIZED, "consent_required")
        assert failure.consent_url.startswith(f"{self.site.base_url}/mcp/oauth/connect?link=")
        return failure.consent_url.partition("=")[2]

    async def begin(self, link: str, browser: str = "b") -> dict[str, str]:
        address = await self.site.begin(link, browser)
        assert address.startswith(f"{ISSUER}/authorize?")
        return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}

    async def consent(self, asker: Asker = ANN) -> Tokens:
        asked = await self.begin(await self.link(asker))
        await self.site.finish({"code": "c", "state": asked["state"]}, "b")
        tokens = await self.tokens.token(asker)
        assert tokens is not None
        return tokens


def test_consent_goes_through_any_cell_and_is_shown_by_all_of_them() -> None:
    async def body() -> None:
        vault = MemoryVault()
        one, two, three = (Cell(vault) for _ in range(3))
        link = await one.link(challenge=Challenge(status=401, scopes=("read",)))
        asked = two.site.asked_by(link)
        assert (asked.backend, asked.principal, asked.scopes) == ("files", "iss ann", ("read",))
        query = await two.begin(link)
        assert (query["scope"], query["resource"], query["redirect_uri"]) == ("read", SERVER, f"{BASE}/mcp/oauth/callback")
        await three.site.finish({"code": "c", "state": query["state"]}, "b")
        assert three.fetch.forms[0]["code"] == "c"
        for cell in (one, two, three):
            tokens = await cell.tokens.token(ANN)
            assert tokens is not None
            assert tokens.access == "at-1"
            assert await cell.tokens.token(BOB) is None

    on_loop(body)


def test_an_answer_is_taken_once_and_from_the_browser_that_began() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        asked = await cell.begin(await cell.link())
        for state, browser in (("", "b"), ("x", "b"), ("x" * 300, "b"), (asked["state"], "another")):
            with pytest.raises(ConsentFailed):
                await cell.site.finish({"code": "c", "state": state}, browser)
        with pytest.raises(ConsentFailed):  # the attempt from elsewhere has used it up
            await cell.site.finish({"code": "c", "state": asked["state"]}, "b")
        assert cell.fetch.token_count == 0
        assert await cell.tokens.token(ANN) is None

    on_loop(body)


@pytest.mark.parametrize("answer", [{"error": "access_denied"}, {"code": "c", "iss": "https://evil.example"}, {}])
def test_an_answer_that_is_no_code_of_that_server_ends_the_flow_before_any_secret_is_sent(answer: dict[str, str]) -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        asked = await cell.begin(await cell.link())
        with pytest.raises(ConsentFailed):
            await cell.site.finish({**answer, "state": asked["state"]}, "b")
        assert cell.fetch.token_count == 0

    on_loop(body)


def test_a_client_that_can_be_known_by_its_document_does_not_register() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        cell.fetch.places[METADATA] = {**cell.fetch.places[METADATA], "client_id_metadata_document_supported": True}
        assert (await cell.begin(await cell.link()))["client_id"] == f"{BASE}/mcp/oauth/client.json"
        assert cell.site.client_document()["redirect_uris"] == [cell.site.redirect_uri]
        unreachable = Cell(MemoryVault(), base="http://127.0.0.1:4000")
        unreachable.fetch.places[METADATA] = cell.fetch.places[METADATA]
        assert (await unreachable.begin(await unreachable.link()))["client_id"] == "new"
        configured = Cell(MemoryVault(), client_id="own")
        assert (await configured.begin(await configured.link()))["client_id"] == "own"

    on_loop(body)


def test_a_token_is_renewed_by_one_cell_for_all() -> None:
    """An authorization server that sees a refresh token twice takes it for stolen."""

    async def body() -> None:
        vault = MemoryVault()
        cells = [Cell(vault) for _ in range(3)]
        cells[0].fetch.places[TOKEN] = {**cells[0].fetch.places[TOKEN], "expires_in": 1}
        await_first = cells[0]
        asked = await await_first.begin(await await_first.link())
        await await_first.site.finish({"code": "c", "state": asked["state"]}, "b")
        for cell in cells:
            cell.fetch.places[TOKEN] = {"access_token": "at-2", "token_type": "Bearer", "expires_in": 3600}
        tokens = await asyncio.gather(*(cell.tokens.token(ANN) for cell in cells for _ in range(4)))
        assert {each.access for each in tokens if each is not None} == {"at-2"}
        assert sum(form["grant_type"] == "refresh_token" for cell in cells for form in cell.fetch.forms) == 1

    on_loop(body)


def test_what_cannot_be_renewed_is_asked_for_anew_and_a_server_that_is_away_is_no_reason_to() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        held = await cell.consent()
        cell.fetch.places[TOKEN] = [away(), 503, (400, {"error": "invalid_grant"})]
        for _ in range(2):
            with pytest.raises(UpstreamError) as raised:
                await cell.tokens.another(ANN, held, UNKNOWN)
            assert raised.value.failure.reason == "upstream_failed"
            assert await cell.tokens.token(ANN) == held
        await cell.link(refused=held)
        assert await cell.tokens.token(ANN) is None

    on_loop(body)


@pytest.mark.parametrize("answer", [{"access_token": "at-2", "token_type": "Bearer"}, (400, {"error": "invalid_grant"})])
def test_what_was_taken_back_while_it_was_renewed_stays_so(answer: Any) -> None:
    """Else the credentials of a user who is denied would come back to the vault after they were deleted there."""

    async def body() -> None:
        vault = MemoryVault()
        cell = Cell(vault)
        held = await cell.consent()
        cell.fetch.places[TOKEN] = answer
        cell.fetch.on_answer = lambda: vault.forget("iss ann")
        await cell.link(refused=held)
        assert vault.principals() == frozenset()

    on_loop(body)


def test_what_is_consented_to_anew_while_the_old_token_is_renewed_is_kept() -> None:
    async def body() -> None:
        vault = MemoryVault()
        cell = Cell(vault)
        held = await cell.consent()

        def consent_anew() -> None:
            content = vault.read(entry, 1)
            assert content is not None
            vault.write(entry, msgspec.msgpack.encode([["at-9", "rt-9", [], 0], msgspec.msgpack.decode(content)[1]]), 1)

        entry = cell.tokens.entry("iss ann")
        cell.fetch.places[TOKEN] = (400, {"error": "invalid_grant"})
        cell.fetch.on_answer = consent_anew
        assert (await cell.tokens.another(ANN, held, UNKNOWN)).access == "at-9"
        tokens = await cell.tokens.token(ANN)
        assert tokens is not None
        assert tokens.access == "at-9"

    on_loop(body)


def test_a_token_that_is_refused_right_after_it_was_renewed_is_forgotten_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        held = await cell.consent()
        cell.fetch.places[TOKEN] = {"access_token": "at-2", "token_type": "Bearer"}
        renewed = await cell.tokens.another(ANN, held, UNKNOWN)
        assert (renewed.access, renewed.refresh) == ("at-2", "rt-1")
        assert cell.tokens.refused_again(ANN, renewed, UNKNOWN).failure.reason == "consent_required"
        assert "taken no more, and forgotten" in caplog.text
        assert await cell.tokens.token(ANN) is None

    on_loop(body)


def test_more_scopes_are_asked_for_until_they_were_granted() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        held = await cell.consent()
        lacking = Challenge(status=403, scopes=("write",))
        assert cell.site.asked_by(await cell.link(challenge=lacking, refused=held)).scopes == ("all", "write")
        assert await cell.tokens.token(ANN) == held, "what was granted goes on"
        for scopes in ((), ("all",)):
            with pytest.raises(UpstreamError) as raised:
                await cell.tokens.another(ANN, held, Challenge(status=403, scopes=scopes))
            assert raised.value.failure.reason == "forbidden"

    on_loop(body)


def test_nobody_in_particular_has_no_credentials_where_users_are_told_apart() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        with pytest.raises(UpstreamError) as raised:
            await cell.tokens.token(Asker())
        assert raised.value.failure.reason == "forbidden"
        cell.site.tells_users_apart = False
        assert await cell.tokens.token(Asker()) is None

    on_loop(body)


def test_what_another_issuer_gave_out_is_not_shown_once_one_is_configured() -> None:
    async def body() -> None:
        vault = MemoryVault()
        await Cell(vault).consent()
        assert await Cell(vault, issuer=ISSUER).tokens.token(ANN) is not None
        assert await Cell(vault, issuer="https://new.example").tokens.token(ANN) is None

    on_loop(body)


@pytest.mark.parametrize(
    ("settings", "is_shown"),
    [
        ({"replicas": ["https://files.example/mcp/"]}, True),
        ({"replicas": ["https://other.example/mcp"]}, False),
        ({"replicas": ["https://files.example:8443/mcp"]}, False),
        ({"replicas": ["https://files.example/other"]}, False),
        ({"resource": SERVER}, True),
        ({"resource": "https://files.example/else"}, False),
    ],
)
def test_what_was_given_out_for_one_server_is_not_shown_to_another_of_its_name(settings: dict[str, Any], is_shown: bool) -> None:
    """The vault outlives the configuration: a backend that has moved must not be handed its predecessor's tokens."""

    async def body() -> None:
        vault = MemoryVault()
        await Cell(vault).consent()
        assert (await Cell(vault, **settings).tokens.token(ANN) is not None) is is_shown

    on_loop(body)


def test_a_client_that_is_no_longer_known_registers_again() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        held = await cell.consent()
        cell.fetch.places[TOKEN] = (401, {"error": "invalid_client"})
        link = await cell.link(refused=held)
        cell.fetch.places[f"{ISSUER}/register"] = {"client_id": "newer"}
        assert (await cell.begin(link))["client_id"] == "newer"

    on_loop(body)


class BrokenVault(MemoryVault):
    def read(self, entry: EntryId, now_ms: int) -> bytes | None:
        raise VaultFailed("the disk is full")

    write = take = delete = lease = read  # type: ignore[assignment]


def test_without_the_vault_nothing_is_shown_and_the_person_is_told_that_it_is_our_fault() -> None:
    async def body() -> None:
        link = await Cell(MemoryVault()).link()
        cell = Cell(BrokenVault())
        with pytest.raises(UpstreamError) as raised:
            await cell.tokens.token(ANN)
        assert raised.value.failure.reason == "upstream_failed"
        with pytest.raises(ConsentFailed) as failed:
            await cell.site.begin(link, "b")
        assert failed.value.is_ours

    on_loop(body)


def test_only_so_many_begin_at_a_time() -> None:
    async def body() -> None:
        cell = Cell(MemoryVault())
        link = await cell.link()
        begun = await asyncio.gather(*(cell.site.begin(link, "b") for _ in range(40)), return_exceptions=True)
        assert sum(isinstance(each, ConsentFailed) for each in begun) == 40 - 16
        assert await cell.site.begin(link, "b")

    on_loop(body)
