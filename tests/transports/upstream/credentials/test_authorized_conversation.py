"""A wire that shows its server who asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import CREDENTIAL, PRINCIPAL, Asker
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import CredentialRefused, UpstreamError, UpstreamRequest, ignore_events
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.upstream.credentials.authorized_conversation import AuthorizedConversation, connection_token
from mcp_gateway.transports.upstream.credentials.challenge import Challenge
from mcp_gateway.transports.upstream.credentials.tokens import Tokens
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import ScriptedWire, settle
from tests.transports.upstream.credentials.scripted_servers import backend

ASK = UpstreamRequest(
    kind=RequestKind.REQUEST,
    message=Request(b"1", "tools/list", b"{}"),
    revision="2025-11-25",
    headers={"traceparent": "00-1"},
    hash_keys={PRINCIPAL: "iss ann", CREDENTIAL: "f-1"},
)


class Source:
    """Gives out tokens by number; first: whether there is one before the server has asked."""

    def __init__(self, *, first: bool) -> None:
        self.given = [Tokens(f"at-{number}", "", (), 0) for number in range(2)]
        self.first = self.given[0] if first else None
        self.asked: list[tuple[Asker, Tokens | None, Challenge]] = []

    async def token(self, asker: Asker) -> Tokens | None:
        return self.first

    async def another(self, asker: Asker, refused: Tokens | None, challenge: Challenge) -> Tokens:
        self.asked.append((asker, refused, challenge))
        return self.given[1]

    def refused_again(self, asker: Asker, refused: Tokens, challenge: Challenge) -> UpstreamError:
        return UpstreamError(Fate.REFUSED, f"{refused.access} is not accepted", reason="forbidden")


def refusal(status: int = 401, header: str = 'Bearer scope="read"') -> CredentialRefused:
    return CredentialRefused(status, {"www-authenticate": header})


def shown(wire: ScriptedWire) -> list[Any]:
    return [each.request.headers.get("authorization") for each in wire.exchanges]


def test_what_is_known_is_shown_at_once_beside_what_travels_along() -> None:
    async def body() -> None:
        wire, source = ScriptedWire(), Source(first=True)
        asking = asyncio.ensure_future(AuthorizedConversation(wire, source).exchange(ASK, ignore_events))
        await settle()
        wire.open[0].answer()
        await asking
        assert wire.exchanges[0].request.headers == {"traceparent": "00-1", "authorization": "Bearer at-0"}
        assert source.asked == []

    on_loop(body)


def test_a_refused_request_is_repeated_once_with_what_the_server_asks_for() -> None:
    async def body() -> None:
        for first in (True, False):
            wire, source = ScriptedWire(), Source(first=first)
            asking = asyncio.ensure_future(AuthorizedConversation(wire, source).exchange(ASK, ignore_events))
            await settle()
            wire.open[0].fail(refusal())
            await settle()
            wire.open[0].answer()
            assert (await asking).status == 200
            assert shown(wire) == ["Bearer at-0" if first else None, "Bearer at-1"]
            assert source.asked == [(Asker("iss ann", "f-1"), source.first, Challenge(status=401, scopes=("read",)))]

    on_loop(body)


def test_a_second_refusal_is_the_end() -> None:
    async def body() -> None:
        wire = ScriptedWire()
        asking = asyncio.ensure_future(AuthorizedConversation(wire, Source(first=True)).exchange(ASK, ignore_events))
        for _ in range(2):
            await settle()
            wire.open[0].fail(refusal(403, "Bearer"))
        with pytest.raises(UpstreamError, match="at-1 is not accepted"):
            await asking
        assert len(wire.exchanges) == 2

    on_loop(body)


def test_a_server_that_wants_to_know_who_probes_it_is_well() -> None:
    async def body() -> None:
        wire = ScriptedWire()
        wire.probe_error = refusal()
        await AuthorizedConversation(wire, Source(first=True)).probe(1.0)
        wire.probe_error = UpstreamError(Fate.UNREACHABLE, "away")
        with pytest.raises(UpstreamError, match="away"):
            await AuthorizedConversation(wire, Source(first=True)).probe(1.0)

    on_loop(body)


def test_a_connection_that_all_share_shows_what_is_given_to_nobody_in_particular_and_something_fresh_once() -> None:
    async def body() -> None:
        source = Source(first=True)
        show = connection_token(backend(auth="client_credentials", client_id="gw"), lambda _: source)
        assert show is not None
        seen: list[Any] = []

        async def ask(headers: Mapping[str, str]) -> int:
            seen.append(headers["authorization"])
            if len(seen) != 2:
                raise refusal()
            return len(seen)

        assert await show(ask) == 2
        assert source.asked == [(Asker(), source.given[0], Challenge(status=401, scopes=("read",)))]
        with pytest.raises(UpstreamError, match="at-1 is not accepted"):
            await show(ask)
        assert seen == ["Bearer at-0", "Bearer at-1", "Bearer at-0", "Bearer at-1"]
        assert connection_token(backend(auth="none"), lambda _: source) is None

    on_loop(body)
