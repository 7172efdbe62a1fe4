"""`/metrics/actions`: operators have something done from the dashboard."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from mcp_gateway.transports.downstream.server.incoming import Incoming, method_not_allowed
from mcp_gateway.transports.downstream.server.operator_cookies import shown_cookie
from mcp_gateway.transports.downstream.server.origins import OriginRules
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.sealed.action_proofs import is_proof, proof_for
from mcp_gateway.transports.protocol.sealed.sealing import Seal

from .actions import ActionOutcome, OperatorAction, read_action

ACTIONS_PATH: Final = "/metrics/actions"
PROOF_HEADER: Final = "Mcp-Gateway-Proof"
_HOLDS_MS: Final = 300_000
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

NoteRefused = Callable[[Principal | None, str, str, str, Refused], None]
"""As `gate.NoteLogIn`."""


class ActionsEndpoint:
    """GET gives the proof that POST asks for, in the header `Mcp-Gateway-Proof`.

    A browser shows a cookie, a certificate, or by its place that it is on this machine, whatever page has it send a request. So
    an action comes from a page of this gateway itself, which its origin tells, and with a proof, which such a page alone can
    read. A token in `Authorization` is shown by nobody who does not have it, and needs no proof.

    may_act:       whether a request's client is an operator.
    knows_clients: whether tokens are looked at here.
    carry_out:     does it; told of in the audit trail by whoever does it. Raises: Refused.
    note_refused:  told of attempts that are refused here, which have an operator's credential.
    """

    def __init__(
        self,
        seal: Seal,
        origins: OriginRules,
        may_act: Callable[[Incoming], bool],
        carry_out: Callable[[OperatorAction, Incoming], Awaitable[ActionOutcome]],
        *,
        knows_clients: bool,
        note_refused: NoteRefused | None = None,
    ) -> None:
        self._seal = seal
        self._origins = origins
        self._may_act = may_act
        self._carry_out = carry_out
        self._knows_clients = knows_clients
        self._note_refused = note_refused
        self._tasks = HeldTasks()

    def handle(self, incoming: Incoming) -> None:
        """Raises: Refused."""
        if incoming.method not in ("GET", "POST"):
            method_not_allowed(incoming, "GET, POST")
            return
        try:
            self._check_sender(incoming)
        except Refused as refused:
            if self._note_refused is not None:
                self._note_refused(incoming.principal, "a browser's word", incoming.remote_ip, incoming.path, refused)
            raise
        if incoming.method == "GET":
            proof = proof_for(self._seal, _holder(incoming), _now_ms() + _HOLDS_MS)
            incoming.respond(200, msgspec.json.encode({"proof": proof}), _HEADERS)
        else:
            self._tasks.start(self._act(incoming, read_action(incoming.body)))

    def _check_sender(self, incoming: Incoming) -> None:
        """Raises: Refused."""
        headers = incoming.headers
        origin = headers.get("Origin")
        is_read = incoming.method == "GET"
        if not self._may_act(incoming):
            raise Refused("forbidden", "where nobody has to log in, only who is on the gateway's machine may do this")
        is_own = origin is None or self._origins.is_own_page(origin, headers.get("Host", ""), incoming.origin.host)
        if not is_own or headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            text = "only pages of this gateway may do this; behind a proxy, public_url of [gateway] says whose those are"
            raise Refused("origin_forbidden", text)
        if is_read or (self._knows_clients and headers.get("Authorization", "").lower().startswith("bearer ")):
            return
        if origin is None:
            raise Refused("origin_forbidden", "without a token in Authorization an action tells the Origin of its page")
        if not is_proof(self._seal, headers.get(PROOF_HEADER, ""), _holder(incoming), _now_ms()):
            raise Refused("forbidden", f"{PROOF_HEADER} is missing, is over, or is somebody else's; GET gives another one")

    async def _act(self, incoming: Incoming, action: OperatorAction) -> None:
        try:
            outcome = await self._carry_out(action, incoming)
            if not outcome.is_done:
                raise Refused("invalid_params", outcome.text, status=409)
        except Refused as refused:
            incoming.refuse(refused, _HEADERS)
            return
        incoming.respond(200, msgspec.json.encode({"ok": True, "text": outcome.text}), _HEADERS)


def _holder(incoming: Incoming) -> str:
    """What a proof is good with: the cookie, or else who its client is known to be by other ways."""
    cookie = shown_cookie(incoming.headers.get("Cookie", ""))
    return f"cookie {cookie}" if cookie else f"client {'' if incoming.principal is None else incoming.principal.key}"


def _now_ms() -> int:
    return int(time.time() * 1000)
