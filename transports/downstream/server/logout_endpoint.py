"""`POST /mcp/oauth/logout`: an issuer says that it has logged somebody out.

Source: OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs

import msgspec

from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.shared_budget import SharedBudget
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .incoming import Incoming, method_not_allowed

LOGOUT_PATH: Final = "/mcp/oauth/logout"
MOST_AT_ONCE: Final = 64
"""Logout tokens of a cell that are being looked at; anybody can make up some. An address has its share of them."""

_LARGEST_FORM_BYTES: Final = 65_536
_ANSWERED: Final = {"Cache-Control": "no-store"}


class LogoutRefused(Exception):
    """The token is not an issuer's word, or was used before; the text says why."""


class LogoutEndpoint:
    """Serves it. log_out: has what a logout token says done in every cell, before it returns; raises LogoutRefused, Refused."""

    def __init__(self, log_out: Callable[[str], Awaitable[None]], largest_share: float) -> None:
        self._log_out = log_out
        self._looking = SharedBudget(MOST_AT_ONCE, largest_share)
        self._tasks = HeldTasks()

    def handle(self, incoming: Incoming) -> None:
        if incoming.method != "POST":
            method_not_allowed(incoming, "POST")
            return
        if not self._looking.take(incoming.remote_ip):
            metrics.bounds_reached_total.labels("logouts").inc()
            raise Refused("too_many_connections", "too many logout tokens of this address are being looked at")
        self._tasks.start(self._answer(incoming))

    async def _answer(self, incoming: Incoming) -> None:
        outcome = "unavailable"
        try:
            await self._log_out(_token_in(incoming.body))
            outcome = "accepted"
            incoming.respond(200, b"", _ANSWERED)
        except LogoutRefused as error:
            outcome = "rejected"
            body = {"error": "invalid_request", "error_description": str(error)}
            incoming.respond(400, msgspec.json.encode(body), _ANSWERED)
        except Refused as refused:
            incoming.refuse(refused, _ANSWERED)
        except Exception:
            incoming.refuse(Refused("upstream_failed", "internal error", status=500), _ANSWERED)
            raise
        finally:
            self._looking.give_back(incoming.remote_ip)
            metrics.logouts_total.labels(outcome).inc()


def _token_in(body: bytes) -> str:
    """Raises: LogoutRefused."""
    try:
        tokens = parse_qs(body[:_LARGEST_FORM_BYTES].decode(), max_num_fields=20).get("logout_token", [])
    except ValueError:  # no UTF-8, or too many fields
        tokens = []
    if len(tokens) != 1:
        raise LogoutRefused("the form has no logout_token, or more than one")
    return tokens[0]
