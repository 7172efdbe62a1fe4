"""Tickets for browsers: each for one handshake, whichever cell it comes to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from mcp_gateway.transports.downstream.server import ticket_ledger
from mcp_gateway.transports.downstream.server.tickets import Tickets
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.tickets import Ticket, sealed_ticket
from tests.doubles.joined_cells import JoinedCells
from tests.doubles.known_clients import ADA, KnownClients, bearer, on_guarded_cell
from tests.doubles.patience import patience
from tests.doubles.raw_http_client import INITIALIZE, RawClient
from tests.doubles.running_cell import RunningCell

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "A" * 22 + "=="}
HANDSHAKES = [
    ("/mcp/ws?", UPGRADE, 101),
    ("/mcp/websocket?vsn=2.0.0&", UPGRADE, 101),
    ("/mcp/sse/events/client.a?", {}, 200),
    ("/mcp/sse/connect?", {}, 200),
    ("/sse?", {}, 200),
]


async def ticket_of(client: RawClient, token: str = "ada") -> str:
    answer = await client.ask("POST", "/mcp/ticket", **bearer(token))
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    told = json.loads(answer.body)
    assert told["expires_in"] == 30
    return str(told["ticket"])


@pytest.mark.parametrize(("path", "headers", "status"), HANDSHAKES)
def test_a_ticket_opens_one_connection_and_no_second(path: str, headers: dict[str, str], status: int) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client, RawClient(cell) as other, RawClient(cell) as asking:
            ticket = await ticket_of(asking)
            assert (await client.ask("GET", f"{path}ticket={ticket}", **headers)).status == status
            again = await other.ask("GET", f"{path}ticket={ticket}", **headers)
            assert (again.status, again.reason) == (401, "unauthorized")
            assert 'error="invalid_token"' in again.headers["www-authenticate"]

    on_guarded_cell(body)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/mcp"), ("GET", "/metrics"), ("POST", "/mcp/sse/messages"), ("POST", "/mcp/ticket")]
)
def test_a_ticket_is_for_handshakes_of_browsers_only(method: str, path: str) -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            ticket = await ticket_of(client, "ops")
            assert (await client.ask(method, f"{path}?ticket={ticket}", INITIALIZE)).status == 401

    on_guarded_cell(body)


def test_who_is_nobody_gets_no_ticket() -> None:
    async def body(cell: RunningCell, _: KnownClients) -> None:
        async with RawClient(cell) as client:
            assert (await client.ask("POST", "/mcp/ticket")).status == 401
            assert (await client.ask("GET", "/mcp/ticket", **bearer("ada"))).status == 405

    on_guarded_cell(body, auth={"mode": "optional"})


def test_a_ticket_ends_with_the_login_that_it_came_from() -> None:
    async def body(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client:
            ticket = await ticket_of(client)
            clients.end(ADA)
            assert (await client.ask("GET", f"/mcp/ws?ticket={ticket}", **UPGRADE)).status == 401

    on_guarded_cell(body)


def test_no_more_tickets_than_a_share_wait_for_their_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticket_ledger.TicketLedger.__init__, "__defaults__", (16,))

    async def body(cell: RunningCell, clients: KnownClients) -> None:
        async with RawClient(cell) as client:
            for _ in range(4):
                await ticket_of(client)
            refused = await client.ask("POST", "/mcp/ticket", **bearer("ada"))
            assert (refused.status, refused.reason, refused.headers["retry-after"]) == (429, "rate_limited", "30")
            await ticket_of(client, "bob")
        assert clients.watched_count == 5

    on_guarded_cell(body)


# ---- cells

Body = Callable[[JoinedCells, dict[str, Tickets]], Awaitable[None]]
SEAL = Seal(b"a secret of the node")


def on_two_cells(body: Body) -> None:
    async def run() -> None:
        node, clients = JoinedCells("cell/0", "cell/1"), KnownClients()
        tickets = {name: Tickets(SEAL, cell, clients, 1.0) for name, cell in node.cells.items()}
        async with patience():
            await body(node, tickets)

    asyncio.run(run())


async def redeemed(tickets: Tickets, text: str) -> Principal | None:
    try:
        return await tickets.redeem(text)
    except Refused as refused:
        assert refused.reason == "unauthorized"
        return None


def test_a_ticket_is_used_once_in_all_cells_together() -> None:
    async def body(_: JoinedCells, tickets: dict[str, Tickets]) -> None:
        for names in (("cell/1", "cell/0"), ("cell/0", "cell/1")):
            text = tickets["cell/0"].issue(ADA)
            assert [await redeemed(tickets[name], text) for name in names] == [ADA, None]
        text = tickets["cell/0"].issue(ADA)
        at_once = await asyncio.gather(*(redeemed(tickets[name], text) for name in ("cell/0", "cell/1") * 5))
        assert at_once.count(ADA) == 1

    on_two_cells(body)


def test_a_ticket_ends_with_the_cell_that_knows_it() -> None:
    async def body(node: JoinedCells, tickets: dict[str, Tickets]) -> None:
        text = tickets["cell/1"].issue(ADA)
        node.kill("cell/1")
        assert await redeemed(tickets["cell/0"], text) is None

    on_two_cells(body)


def test_nobody_is_asked_about_what_was_never_given_out() -> None:
    async def body(node: JoinedCells, tickets: dict[str, Tickets]) -> None:
        expired = sealed_ticket(SEAL, Ticket("cell/1", "key", 1))
        for text in ("forged", expired, sealed_ticket(Seal(b"another secret of 16"), Ticket("cell/1", "k", 2**60))):
            assert await redeemed(tickets["cell/0"], text) is None
        assert node.sent == []

    on_two_cells(body)
