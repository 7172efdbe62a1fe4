"""The actor that has the issuers' keys and asks them about opaque tokens."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from thespian.actors import ActorAddress

from mcp_gateway.actors.messages.identity import (
    IssuerUnreachable,
    LogOutVerified,
    TokenRejected,
    TokenVerified,
    VerificationLost,
    VerifyLogOut,
    VerifyToken,
)
from mcp_gateway.actors.runtime.gateway_actor import GatewayActor
from mcp_gateway.config.identity_settings import IssuerSettings, LogOut
from mcp_gateway.transports.identity.claims import audience_of
from mcp_gateway.transports.identity.introspection import HOLDS_S
from mcp_gateway.transports.identity.jwks import SigningKey
from mcp_gateway.transports.identity.jwt_verification import UnverifiedToken, looks_like_jwt, read_token, verify
from mcp_gateway.transports.identity.logout_tokens import read_log_out
from mcp_gateway.transports.identity.rejection import CredentialRejected, KeyUnknown
from mcp_gateway.transports.ports.loop_tasks import HeldTasks
from mcp_gateway.transports.ports.principal import Principal

from .issuer_away import IssuerAwayError
from .issuer_introspection import IssuerIntrospection
from .issuer_keys import IssuerKeys

_Found = TypeVar("_Found")
_Asked = TypeVar("_Asked", VerifyToken, VerifyLogOut)


class Identity(GatewayActor):
    """Verifies access tokens and logout tokens of the configured issuers.

    Receives  VerifyToken, VerifyLogOut (known clients, by way of the edge)
    Sends     TokenVerified, LogOutVerified, TokenRejected, IssuerUnreachable, VerificationLost (edge)
    On crash  keys are forgotten and asked for again; whoever waits is told to ask again
    """

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[IssuerSettings, IssuerKeys] = {}
        self._introspections: dict[IssuerSettings, IssuerIntrospection] = {}
        self._waiting: dict[str, ActorAddress] = {}
        self._tasks = HeldTasks()

    def receiveMsg_VerifyToken(self, message: VerifyToken, sender: ActorAddress) -> None:
        self._begin(message, self._verified, sender)

    def receiveMsg_VerifyLogOut(self, message: VerifyLogOut, sender: ActorAddress) -> None:
        self._begin(message, self._log_out, sender)

    def _begin(self, message: _Asked, find_out: Callable[[_Asked], Awaitable[object]], sender: ActorAddress) -> None:
        self._waiting[message.request_id] = sender
        self._let_go_of(message)
        self._tasks.start(self._answer(message, find_out))

    def on_crash(self, message: object, sender: ActorAddress) -> None:
        if isinstance(message, VerifyToken | VerifyLogOut) and message.request_id not in self._waiting:
            self.send(sender, VerificationLost(request_id=message.request_id))

    def on_exit(self) -> None:
        self._tasks.cancel()
        for keys in self._keys.values():
            keys.close()
        for request_id, asker in self._waiting.items():
            self.send(asker, VerificationLost(request_id=request_id))
        self._waiting.clear()

    # ---- verification

    async def _answer(self, message: _Asked, find_out: Callable[[_Asked], Awaitable[object]]) -> None:
        request_id = message.request_id
        try:
            outcome = await find_out(message)
        except CredentialRejected as error:
            outcome = TokenRejected(request_id=request_id, text=str(error))
        except IssuerAwayError as error:
            outcome = IssuerUnreachable(request_id=request_id, text=str(error))
        except Exception as error:  # a defect of ours must not leave a client waiting
            self.log(logging.ERROR, f"verification failed: {error!r}", error=error)
            outcome = IssuerUnreachable(request_id=request_id, text="internal error")
        asker = self._waiting.pop(request_id, None)
        if asker is not None and self.runtime is not None:
            self.runtime.post(asker, outcome)

    async def _verified(self, message: VerifyToken) -> TokenVerified:
        request_id = message.request_id
        if looks_like_jwt(message.token):
            principal = await self._verify(message)
            return TokenVerified(request_id=request_id, principal=principal, check_again_ms=principal.expires_ms)
        principal = await self._introspect(message)
        return TokenVerified(request_id=request_id, principal=principal, check_again_ms=int((time.time() + HOLDS_S) * 1000))

    async def _log_out(self, message: VerifyLogOut) -> LogOutVerified:
        def check(token: UnverifiedToken, keys: Sequence[SigningKey], issuer: IssuerSettings) -> LogOut:
            return read_log_out(token, keys, issuer, time.time())

        return LogOutVerified(request_id=message.request_id, log_out=await self._with_keys(message, check))

    async def _verify(self, message: VerifyToken) -> Principal:
        def check(token: UnverifiedToken, keys: Sequence[SigningKey], issuer: IssuerSettings) -> Principal:
            return verify(token, keys, issuer, audience_of(issuer, message.public_url), time.time())

        return await self._with_keys(message, check)

    async def _with_keys(
        self,
        message: VerifyToken | VerifyLogOut,
        check: Callable[[UnverifiedToken, Sequence[SigningKey], IssuerSettings], _Found],
    ) -> _Found:
        """Check a token with the keys of the issuer that it names, and once more where these may have changed."""
        token = read_token(message.token)
        issuer = next((each for each in message.auth.issuers if each.issuer == token.issuer), None)
        if issuer is None:
            raise CredentialRejected("the token is of another issuer")
        keys = self._keys_of(issuer)
        try:
            return check(token, await keys.current(), issuer)
        except KeyUnknown:
            return check(token, await keys.newer(), issuer)

    async def _introspect(self, message: VerifyToken) -> Principal:
        """Of the first issuer that knows the token; one that is away may be the one that does."""
        away: IssuerAwayError | None = None
        for issuer in message.auth.issuers:
            if not issuer.introspection_url:
                continue
            introspection = self._introspections.setdefault(issuer, IssuerIntrospection(issuer))
            try:
                return await introspection.principal_of(message.token, audience_of(issuer, message.public_url))
            except IssuerAwayError as error:
                away = error
            except CredentialRejected:
                continue
        raise away or CredentialRejected("the token is of nobody who is known here")

    def _keys_of(self, issuer: IssuerSettings) -> IssuerKeys:
        if issuer not in self._keys:
            self._keys[issuer] = IssuerKeys(issuer)
        return self._keys[issuer]

    def _let_go_of(self, message: VerifyToken | VerifyLogOut) -> None:
        """What is kept of issuers that are no longer configured."""
        for issuer in self._keys.keys() - set(message.auth.issuers):
            self._keys.pop(issuer).close()
        for issuer in self._introspections.keys() - set(message.auth.issuers):
            del self._introspections[issuer]
