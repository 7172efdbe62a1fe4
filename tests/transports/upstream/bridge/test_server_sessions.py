"""Sessions lent to one call at a time: a burst of calls shares the few that are opened, first come, first served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import attrs
import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import PRINCIPAL, owner_of, principal_of
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request
from mcp_gateway.transports.upstream.bridge.server_sessions import ServerSession, ServerSessions, SessionKey
from tests.doubles.patience import patience
from tests.doubles.scripted_wire import Exchange, ScriptedWire, settle

KEY = SessionKey(
    principal="ada",
    client_info=b'{"name":"c","version":"1"}',
    capabilities=b'{"roots":{}}',
    log_level=None,
    is_exclusive=True,
)
OPENED = json.dumps({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}).encode()


class Bench:
    def __init__(self) -> None:
        self.wire = ScriptedWire()
        self.sessions = ServerSessions(self.wire, "2025-11-25")

    def lend(self) -> asyncio.Task[ServerSession]:
        return asyncio.ensure_future(self.sessions.lend(KEY))

    @property
    def openings(self) -> list[Exchange]:
        """Handshakes that the server has not answered."""
        return [each for each in self.wire.open if isinstance(each.request.message, Request)]

    async def opens_one(self) -> None:
        self.openings[0].answer(OPENED, session_id=f"s{len(self.wire.exchanges)}")
        await settle()
        for each in self.wire.open:
            if each.request.kind is RequestKind.MESSAGE:
                each.answer(status=202)
        await settle()


def on_loop(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with patience():
            await body(Bench())

    asyncio.run(run())


def test_a_burst_of_calls_is_served_by_the_two_sessions_that_are_opened_at_a_time() -> None:
    async def body(bench: Bench) -> None:
        calls = [bench.lend() for _ in range(20)]
        await settle()
        assert len(bench.openings) == 2
        await bench.opens_one()
        served = 0
        while served < 20:  # each call is short: it gives its session back before another one is open
            session = await calls[served]
            served += 1
            assert session.use_count == 1
            bench.sessions.give_back(session)
            await settle()
        assert len(bench.sessions) <= 3

    on_loop(body)


def test_calls_that_stay_get_sessions_of_their_own_two_at_a_time() -> None:
    async def body(bench: Bench) -> None:
        calls = [bench.lend() for _ in range(5)]
        await settle()
        for _ in range(5):
            assert len(bench.openings) <= 2
            await bench.opens_one()
        sessions = [await call for call in calls]
        assert len({session.session_id for session in sessions}) == 5
        assert bench.openings == []

    on_loop(body)


def test_a_caller_that_leaves_gives_its_turn_or_its_session_to_the_next() -> None:
    async def body(bench: Bench) -> None:
        first, second, third = (bench.lend() for _ in range(3))
        await settle()
        first.cancel()
        await bench.opens_one()
        session = await second
        # The session is handed over in the very moment in which its caller leaves.
        bench.sessions.give_back(session)
        third.cancel()
        await settle()
        assert await bench.lend() is session

    on_loop(body)


def test_a_session_that_is_handed_over_is_lent_to_nobody_else_in_that_moment() -> None:
    async def body(bench: Bench) -> None:
        holding = asyncio.ensure_future(bench.sessions.hold(KEY))
        await settle()
        await bench.opens_one()
        held = await holding
        assert await bench.lend() is held
        waiting = bench.lend()
        await settle()
        other = bench.lend()
        bench.sessions.give_back(held)  # it is the waiting one's, but the other one runs first
        await settle()
        assert (waiting.done(), other.done(), held.use_count) == (True, False, 1)
        other.cancel()
        bench.sessions.give_back(held)
        await bench.sessions.close()

    on_loop(body)


def test_an_opening_that_fails_is_told_to_one_caller_and_the_others_go_on_waiting() -> None:
    async def body(bench: Bench) -> None:
        calls = [bench.lend() for _ in range(3)]
        await settle()
        bench.openings[0].fail(UpstreamError(Fate.BROKEN, "no"))
        await settle()
        with pytest.raises(UpstreamError, match="no"):
            await calls[0]
        await bench.opens_one()
        bench.sessions.give_back(await calls[1])
        await settle()
        assert calls[2].done()
        assert len(bench.sessions) >= 1

    on_loop(body)


def test_closing_lets_nobody_wait() -> None:
    async def body(bench: Bench) -> None:
        call = bench.lend()
        await settle()
        await bench.sessions.close()
        await settle()
        assert call.cancelled()

    on_loop(body)


@pytest.mark.parametrize(("version", "spoken"), [("2024-10-07",) * 2, ("2030-01-01",) * 2, ("2026-07-28", "2025-11-25")])
def test_a_session_at_a_server_of_an_unknown_revision_speaks_it(version: str, spoken: str) -> None:
    async def body(bench: Bench) -> None:
        lent = bench.lend()
        await settle()
        bench.openings[0].answer(json.dumps({"protocolVersion": version}).encode(), session_id="s")
        await settle()
        (told,) = bench.wire.open
        assert (told.request.kind, told.request.revision) == (RequestKind.MESSAGE, spoken)
        told.answer(status=202)
        assert (await lent).revision == spoken

    on_loop(body)


@pytest.mark.parametrize("version", [7, "", "a b"])
def test_a_server_whose_version_cannot_be_spoken_lends_no_session(version: object) -> None:
    async def body(bench: Bench) -> None:
        lent = bench.lend()
        await settle()
        bench.openings[0].answer(json.dumps({"protocolVersion": version}).encode(), session_id="s")
        with pytest.raises(UpstreamError, match="cannot be spoken") as raised:
            await lent
        assert raised.value.fate is Fate.REFUSED

    on_loop(body)


def test_a_server_that_fails_at_its_log_level_serves_calls_without_and_is_told_once() -> None:
    """Source: MCP 2025-11-25, server/utilities/logging: no call depends on it."""
    opened = json.dumps({"protocolVersion": "2025-11-25", "capabilities": {"logging": {}}}).encode()

    async def body(bench: Bench) -> None:
        key = attrs.evolve(KEY, log_level="info", is_exclusive=False)
        lent = asyncio.ensure_future(bench.sessions.lend(key))
        await settle()
        bench.openings[0].answer(opened, session_id="s")
        await settle()
        bench.wire.open[0].answer(status=202)
        await settle()
        (level,) = bench.openings
        assert level.request.timeout_s is not None
        assert level.request.timeout_s <= 2.0
        level.fail(UpstreamError(Fate.BROKEN, "the server answered with status 500"))
        session = await lent
        assert session.session_id == "s"
        assert await bench.sessions.lend(key) is session
        assert bench.wire.open == []

    on_loop(body)


def test_all_that_is_said_in_a_session_is_said_for_the_principal_whose_it_is() -> None:
    """Its opening, its own requests and its end as well: a server that is shown each user would take them for somebody else's."""

    async def body(bench: Bench) -> None:
        lending = asyncio.ensure_future(bench.sessions.lend(attrs.evolve(KEY, principal=owner_of({PRINCIPAL: "iss ada"}))))
        await settle()
        await bench.opens_one()
        session = await lending
        bench.sessions.ask_later(session, "resources/unsubscribe", b"{}")
        bench.sessions.say_later(session, Notification("notifications/cancelled", b"{}"))
        bench.sessions.end(session)
        await settle()
        kinds = [each.request.kind for each in bench.wire.exchanges]
        assert kinds.count(RequestKind.REQUEST) == kinds.count(RequestKind.MESSAGE) == 2
        assert kinds.count(RequestKind.TERMINATE) == 1
        assert [principal_of(each.request.hash_keys) for each in bench.wire.exchanges] == ["iss ada"] * 5

    on_loop(body)
