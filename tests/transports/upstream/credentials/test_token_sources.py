"""The gateway's own token, and tokens that clients' are exchanged for."""

from __future__ import annotations

import asyncio

import pytest

from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import Asker
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.subject_tokens import SubjectTokens
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.upstream.credentials.challenge import Challenge
from mcp_gateway.transports.upstream.credentials.token_sources import ExchangedTokens, GatewayTokens
from tests.doubles.patience import on_loop
from tests.transports.upstream.credentials.scripted_servers import ISSUER, SERVER, ScriptedFetch, away, backend, servers

NOBODY, ANN, ANN_TOO = Asker(), Asker("iss ann", "f-1"), Asker("iss ann", "f-2")
TOKEN = f"{ISSUER}/token"
UNKNOWN, LACKING = Challenge(status=401), Challenge(status=403, scopes=("write",))


def gateway_tokens(fetch: ScriptedFetch, token_url: str = TOKEN) -> GatewayTokens:
    settings = {"auth": "client_credentials", "client_id": "gw", "token_url": token_url}
    return GatewayTokens(backend(**settings), servers(fetch, **settings))


def exchanged(fetch: ScriptedFetch, most_kept: int = 10) -> ExchangedTokens:
    settings = {"auth": "token_exchange", "client_id": "gw", "token_url": TOKEN}
    subjects = SubjectTokens()
    subjects.is_wanted = True
    for fingerprint in ("f-1", "f-2"):
        principal = Principal(issuer="iss", subject="ann", fingerprint=fingerprint)
        subjects.note(principal, Credential(kind=CredentialKind.BEARER, value=f"token {fingerprint}"))
    return ExchangedTokens(backend(**settings), servers(fetch, **settings), subjects, most_kept)


def test_the_gateways_token_is_asked_for_once_by_all_who_wait_and_used_until_its_end() -> None:
    async def body() -> None:
        fetch = ScriptedFetch()
        source = gateway_tokens(fetch)
        tokens = await asyncio.gather(*(source.token(asker) for asker in (NOBODY, ANN, ANN)))
        assert {each.access for each in tokens if each is not None} == {"at-1"}
        assert fetch.token_count == 1
        assert fetch.forms[0] == {"grant_type": "client_credentials", "resource": SERVER, "client_id": "gw"}
        fetch.places[TOKEN] = {"access_token": "at-2", "token_type": "Bearer", "expires_in": 1}
        assert (await source.another(ANN, tokens[0], UNKNOWN)).access == "at-2"
        assert await source.token(ANN) is not None
        assert fetch.token_count == 3, "a second is as good as over"

    on_loop(body)


def test_where_nobody_says_where_tokens_are_given_the_server_is_asked_first() -> None:
    async def body() -> None:
        fetch = ScriptedFetch()
        source = gateway_tokens(fetch, "")
        assert await source.token(NOBODY) is None
        assert (await source.another(NOBODY, None, UNKNOWN)).access == "at-1"
        assert fetch.forms[0]["scope"] == "all"
        fetch.places[TOKEN] = {"access_token": "at-2", "token_type": "Bearer"}
        held = await source.token(NOBODY)
        assert (await source.another(NOBODY, held, LACKING)).access == "at-2"
        assert fetch.forms[1]["scope"] == "all write"
        with pytest.raises(UpstreamError) as raised:  # it has been given what it lacks, and lacks it still
            await source.another(NOBODY, await source.token(NOBODY), LACKING)
        assert (raised.value.fate, raised.value.failure.reason) == (Fate.REFUSED, "forbidden")

    on_loop(body)


def test_without_a_token_nothing_is_sent_and_nobody_else_is_asked() -> None:
    async def body() -> None:
        for said in ((400, {"error": "invalid_client"}), 500, away()):
            fetch = ScriptedFetch()
            fetch.places[TOKEN] = said
            with pytest.raises(UpstreamError) as raised:
                await gateway_tokens(fetch).token(NOBODY)
            assert (raised.value.fate, raised.value.failure.reason) == (Fate.UNAUTHORIZED, "upstream_failed")
            assert not raised.value.fate.was_sent

    on_loop(body)


def test_each_client_is_shown_what_its_own_token_was_exchanged_for() -> None:
    """Two programs of one user may do different things."""

    async def body() -> None:
        fetch = ScriptedFetch()
        fetch.places[TOKEN] = [{"access_token": f"at-{number}", "token_type": "Bearer"} for number in range(3)]
        source = exchanged(fetch)
        first, second = await source.token(ANN), await source.token(ANN_TOO)
        assert first is not None
        assert second is not None
        assert (first.access, second.access) == ("at-0", "at-1")
        assert await source.token(ANN) == first
        assert [form["subject_token"] for form in fetch.forms] == ["token f-1", "token f-2"]
        assert (await source.another(ANN, first, LACKING)).access == "at-2"
        assert fetch.forms[-1]["scope"] == "write"

    on_loop(body)


def test_who_comes_without_a_token_is_shown_as_nobody() -> None:
    async def body() -> None:
        for asker in (NOBODY, Asker("iss ann"), Asker("iss bob", "f-1"), Asker("iss ann", "f-3")):
            with pytest.raises(UpstreamError) as raised:
                await exchanged(ScriptedFetch()).token(asker)
            assert raised.value.failure.reason == "forbidden"

    on_loop(body)


def test_only_so_many_are_kept() -> None:
    async def body() -> None:
        fetch = ScriptedFetch()
        source = exchanged(fetch, most_kept=1)
        for asker in (ANN, ANN, ANN_TOO, ANN):
            await source.token(asker)
        assert fetch.token_count == 3

    on_loop(body)
