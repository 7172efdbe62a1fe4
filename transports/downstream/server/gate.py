"""Lets requests in: finds out who sends each one, before an endpoint sees it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from enum import Enum
from typing import Final

from mcp_gateway.config.identity_settings import AuthSettings
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.ports.authenticator import Authenticator, Credential, CredentialKind, LogInRefused
from mcp_gateway.transports.ports.loop_tasks import HeldTasks, retrieve
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.ports.shared_budget import SharedBudget
from mcp_gateway.transports.protocol.mcp import jsonrpc
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

from .credentials import CredentialReader, ShownTicket
from .incoming import Incoming
from .operator_cookies import OperatorCookies
from .protected_resource import endpoint_at
from .tickets import Tickets
from .tls import ClientCertificate

_MOST_WAITING: Final = 512
"""Requests of a cell whose clients are being found out about; an address has its share of them."""
_PATIENCE_S: Final = 15.0
"""For whoever knows a client. A fetch of keys takes ten at most."""


_READS: Final = ("GET", "HEAD")
_FOR_THE_TRAIL: Final = frozenset({"unauthorized", "insufficient_scope"})

NoteLogIn = Callable[[Principal | None, str, str, str, Refused], None]
"""Called with who it is as far as that is known, what was shown ("nothing", "ticket", or a `CredentialKind`), from which address,
for which path, and why it is refused."""


class Access(Enum):
    """Whom an address serves.

    EVERYBODY: nobody is asked who it is. ANYBODY: who says who it is may be told more. CLIENTS: who is known, or whoever where
    authentication is optional. OPERATORS: who has the operator scope; a browser's cookie tells so for reading alone.
    ACTIONS: the same, where the cookie counts for more, because the endpoint asks for a proof beside it.
    """

    EVERYBODY = "everybody"
    ANYBODY = "anybody"
    CLIENTS = "clients"
    OPERATORS = "operators"
    ACTIONS = "actions"


class Gate:
    """Knows who sends a request, or finds out, or refuses it. There is none where everybody is anonymous.

    auth:      the settings that hold.
    tickets:   where they are taken.
    note:      told of clients that are not let in, for the audit trail; None where there is none.
    cookies:   of operators' browsers, for reading their pages.
    carry_out: has work of a request done, and answers it where the work raises.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        tickets: Tickets | None,
        is_proxy: Callable[[str], bool],
        carry_out: Callable[[Incoming, Callable[[], None]], None],
        note: NoteLogIn | None = None,
        cookies: OperatorCookies | None = None,
    ) -> None:
        assert settings.auth is not None
        self.take(settings.auth)
        self._authenticator = authenticator
        self._tickets = tickets
        self._is_proxy = is_proxy
        self._carry_out = carry_out
        self._cookies = cookies
        self._note = note
        self._waiting = SharedBudget(_MOST_WAITING, settings.gateway.max_share_per_address)
        self._tasks = HeldTasks()
        self._left: set[asyncio.Task[Principal]] = set()  # whose clients have gone; what was begun for them takes its share still

    def take(self, auth: AuthSettings) -> None:
        """These settings hold from now on."""
        self.auth = auth
        self._reader = CredentialReader(auth)

    def admit(self, incoming: Incoming, access: Access, takes_ticket: bool, handle: Callable[[Incoming], None]) -> None:
        """Have `handle` serve the request, now or once its client is known.

        Raises: Refused.
        """
        shown: Credential | ShownTicket | None = None
        try:
            is_from_proxy = self._is_proxy(incoming.peer)
            shown = self._reader.read(incoming.headers, incoming.query, is_from_proxy=is_from_proxy, takes_ticket=takes_ticket)
            if shown is None and self._cookies is not None and _takes_cookie(access, incoming.method):
                shown = self._cookies.credential_in(incoming.headers.get("Cookie", ""))
            if shown is None and self.auth.client_certificates:
                shown = self._certified(incoming)
            principal = self._authenticator.known(shown) if isinstance(shown, Credential) else None
            if shown is not None and principal is None:
                self._find_out(incoming, shown, access, handle)
                return
            self._check(incoming, principal, access)
        except Refused as refused:
            raise self._noted(refused, incoming, shown) from None
        handle(incoming)

    async def find_operator(self, incoming: Incoming, credential: Credential) -> None:
        """Whether this credential is an operator's, whom a form has sent it for.

        Raises: Refused.
        """
        address = incoming.remote_ip
        try:
            self._take_turn(address)
            try:
                self._check(incoming, await self._ask(credential), Access.OPERATORS)
            finally:
                self._waiting.give_back(address)
        except Refused as refused:
            raise self._noted(refused, incoming, credential) from None

    def is_operator(self, principal: Principal | None) -> bool:
        return principal is not None and self.auth.makes_operator(principal.scopes)

    def check_operator(self, principal: Principal | None) -> None:
        """Raises: Refused, with the scope that is needed."""
        if self.is_operator(principal):
            return
        scopes = [self.auth.operator_scope] if self.auth.operator_scope else []
        if principal is None:
            raise Refused("unauthorized", "this is for operators; log in", data={"scopes": scopes})
        raise Refused("insufficient_scope", "this is for operators", data={"scopes": scopes})

    def on_log_out(self, principal: Principal, callback: Callable[[], None]) -> Callable[[], None]:
        """As `Authenticator.on_end`."""
        return self._authenticator.on_end(principal, callback)

    # ---- parts

    def _certified(self, incoming: Incoming) -> Credential | None:
        """The user that the client's certificate is about, where it is about one."""
        certificate = self._certificate(incoming)
        if certificate is None or not certificate.subject:
            return None
        return Credential(kind=CredentialKind.CERTIFICATE, value=certificate.subject, expires_ms=certificate.expires_ms)

    def _certificate(self, incoming: Incoming) -> ClientCertificate | None:
        """Of the client itself: one at the end of a proxy's connection is the proxy's."""
        return None if self._is_proxy(incoming.peer) else incoming.certificate

    def _check(self, incoming: Incoming, principal: Principal | None, access: Access) -> None:
        endpoint = endpoint_at(incoming.path, incoming.query)
        if principal is not None and endpoint is not None and not principal.is_for(endpoint):
            raise _not_good_here("the token is made out to another server of this gateway", principal)
        if principal is not None and principal.bound_to:
            certificate = self._certificate(incoming)
            if certificate is None or certificate.thumbprint != principal.bound_to:
                raise _not_good_here("the token is bound to a certificate, which its client has to show", principal)
        incoming.principal = principal
        if access in (Access.OPERATORS, Access.ACTIONS):
            self.check_operator(principal)
        elif principal is None and access is Access.CLIENTS and self.auth.mode == "required":
            raise Refused("unauthorized", "log in, and send an access token in the header Authorization")

    def _find_out(
        self, incoming: Incoming, shown: Credential | ShownTicket, access: Access, handle: Callable[[Incoming], None]
    ) -> None:
        self._take_turn(incoming.remote_ip)
        task = self._tasks.start(self._ask(shown))
        incoming.on_client_gone(lambda: self._left.add(task))
        task.add_done_callback(functools.partial(self._found_out, incoming, shown, access, handle))

    def _take_turn(self, address: str) -> None:
        """Raises: Refused."""
        if not self._waiting.take(address):
            metrics.bounds_reached_total.labels("logins").inc()
            raise Refused("too_many_connections", "too many clients of this address are being found out about at once")

    async def _ask(self, shown: Credential | ShownTicket) -> Principal:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                if isinstance(shown, Credential):
                    return await self._authenticator.authenticate(shown)
                if self._tickets is None:
                    raise Refused("unauthorized", "tickets are not taken here")
                return await self._tickets.redeem(shown.text)
        except TimeoutError:
            raise Refused("upstream_timeout", "whoever knows this client does not answer") from None
        except Refused as refused:
            if refused.reason == "unauthorized":
                refused.data.setdefault("error", "invalid_token")
            raise

    def _found_out(
        self,
        incoming: Incoming,
        shown: Credential | ShownTicket,
        access: Access,
        handle: Callable[[Incoming], None],
        task: asyncio.Task[Principal],
    ) -> None:
        self._waiting.give_back(incoming.remote_ip)
        if task in self._left:
            self._left.discard(task)
            retrieve(task)
            return
        incoming.on_client_gone(None)

        def let_in() -> None:
            try:
                self._check(incoming, task.result(), access)
            except Refused as refused:
                raise self._noted(refused, incoming, shown) from None
            handle(incoming)

        self._carry_out(incoming, let_in)

    def _noted(self, refused: Refused, incoming: Incoming, shown: Credential | ShownTicket | None) -> Refused:
        """Refused before an endpoint has read the request, which has an id all the same."""
        refused.request_id = jsonrpc.request_id_in(incoming.body)
        how = "nothing" if shown is None else "ticket" if isinstance(shown, ShownTicket) else shown.kind.value
        metrics.logins_refused_total.labels(how, refused.reason).inc()
        if self._note is not None and refused.reason in _FOR_THE_TRAIL:
            principal = refused.principal if isinstance(refused, LogInRefused) else incoming.principal
            self._note(principal, how, incoming.remote_ip, incoming.path, refused)
        return refused


def _takes_cookie(access: Access, method: str) -> bool:
    return access is Access.ACTIONS or (access is Access.OPERATORS and method in _READS)


def _not_good_here(text: str, principal: Principal) -> LogInRefused:
    """Of a good token that somebody else shows, or shows elsewhere."""
    refused = LogInRefused(text, principal)
    refused.data["error"] = "invalid_token"
    return refused
