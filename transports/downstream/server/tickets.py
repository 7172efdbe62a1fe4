"""Gives out tickets and takes them, whichever cell they come back to: `POST /mcp/ticket`."""

from __future__ import annotations

import functools
import secrets
import time
from typing import Final

import attrs
import msgspec

from mcp_gateway.transports.ports.authenticator import Authenticator
from mcp_gateway.transports.ports.edge_port import CellsPort
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.tickets import Ticket, read_ticket, sealed_ticket
from mcp_gateway.transports.telemetry import metrics

from .incoming import Incoming, method_not_allowed
from .ticket_ledger import LIFETIME_MS, TicketLedger

TICKET_PATH: Final = "/mcp/ticket"
_ASK_S: Final = 5.0


@attrs.frozen(kw_only=True)
class TicketShown:
    """Cell -> the cell that has given the ticket out: whose is it? Answered with a `TicketUsed`; asked again, with nobody."""

    key: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class TicketUsed:
    """The answer."""

    principal: Principal | None = attrs.field(repr=False)


class Tickets:
    """A ticket is good for one handshake: only the cell that has given it out knows it, and forgets it when it is asked.

    With that cell the ticket is gone; its page asks for another one.
    """

    def __init__(self, seal: Seal, cells: CellsPort, authenticator: Authenticator, largest_share: float) -> None:
        self._seal = seal
        self._cells = cells
        self._authenticator = authenticator
        self._ledger = TicketLedger(largest_share)
        cells.answer_cells(TicketShown, lambda shown: TicketUsed(principal=self._ledger.use(shown.key, _now_ms())))

    def handle(self, incoming: Incoming) -> None:
        """Serve `POST /mcp/ticket`."""
        if incoming.method != "POST":
            method_not_allowed(incoming, "POST")
            return
        if incoming.principal is None:
            raise Refused("unauthorized", "a ticket is for somebody: log in")
        body = {"ticket": self.issue(incoming.principal), "expires_in": LIFETIME_MS // 1_000}
        incoming.respond(200, msgspec.json.encode(body), {"Cache-Control": "no-store"})

    def issue(self, principal: Principal) -> str:
        """Raises: Refused with rate_limited."""
        key, now_ms = secrets.token_urlsafe(18), _now_ms()
        if not self._ledger.add(key, principal, now_ms):
            metrics.bounds_reached_total.labels("tickets").inc()
            text = "too many tickets that nobody has used"
            raise Refused("rate_limited", text, retry_after_s=LIFETIME_MS / 1_000)
        self._ledger.when_dropped(key, self._authenticator.on_end(principal, functools.partial(self._forget, key)))
        return sealed_ticket(self._seal, Ticket(self._cells.cell_name, key, now_ms + LIFETIME_MS))

    async def redeem(self, shown: str) -> Principal:
        """Whose ticket it is, once.

        Raises: Refused with unauthorized.
        """
        ticket = read_ticket(self._seal, shown)
        principal = None
        if ticket is not None and ticket.expires_ms > _now_ms():
            if ticket.cell == self._cells.cell_name:
                principal = self._ledger.use(ticket.key, _now_ms())
            elif ticket.cell in self._cells.other_cells:
                principal = await self._ask(ticket)
        if principal is None:
            raise Refused("unauthorized", "the ticket has been used, has expired, or was never given out; ask for another one")
        return principal

    async def _ask(self, ticket: Ticket) -> Principal | None:
        try:
            used: TicketUsed = await self._cells.ask_cell(ticket.cell, TicketShown(key=ticket.key), _ASK_S)
        except (LookupError, TimeoutError):
            return None
        return used.principal

    def _forget(self, key: str) -> None:
        self._ledger.drop(key)


def _now_ms() -> int:
    return int(time.time() * 1000)
