"""Knows clients by what they show, on the event loop, whichever identity actor is up."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Callable
from typing import Any, Final

from mcp_gateway.actors.messages.identity import (
    LogOutVerified,
    TokenRejected,
    TokenVerified,
    VerificationLost,
    VerifyLogOut,
    VerifyToken,
)
from mcp_gateway.config.identity_settings import AuthSettings, LogOut
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.identity.api_keys import principal_of_api_key
from mcp_gateway.transports.identity.denials import Denials
from mcp_gateway.transports.identity.endings import Endings
from mcp_gateway.transports.identity.holding import still_holds
from mcp_gateway.transports.identity.jwt_verification import LONGEST_TOKEN
from mcp_gateway.transports.identity.known_credentials import KnownCredentials
from mcp_gateway.transports.identity.rejection import CredentialRejected
from mcp_gateway.transports.identity.vouched_users import vouched_principal
from mcp_gateway.transports.ports.authenticator import Credential, CredentialKind, LogInRefused
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.principal import Principal
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.telemetry import metrics

MOST_KNOWN: Final = 10_000
"""Credentials that have been checked; of a cell. One takes less than a kilobyte."""

_ASK_S: Final = 25.0
"""Three fetches of an issuer's documents, each with a limit of its own, in the worst case but one."""

_TRIES: Final = 3
_RESTART_S: Final = 0.05
"""While the actor starts again."""

_LONGEST_TIMER_MS: Final = 3_600_000


class KnownClients:
    """Implements `authenticator.Authenticator`. ask: puts a question to an actor of this cell by its short name."""

    def __init__(self, settings: Settings, ask: Callable[[str, Any], asyncio.Future[Any]]) -> None:
        assert settings.auth is not None
        self._auth: AuthSettings = settings.auth
        self._public_url = settings.gateway.public_url
        self._revocations = settings.revocations
        self._denials = _denials(settings)
        self._ask = ask
        self._known = KnownCredentials(MOST_KNOWN)
        self._checking: SharedTasks[bytes, Principal] = SharedTasks()
        self._endings = Endings()
        self._timer: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)

    def take_settings(self, settings: Settings) -> None:
        """Who is known, and with which rights, is judged anew; what no longer holds ends before this returns."""
        if settings.auth is None or (settings.auth, settings.revocations) == (self._auth, self._revocations):
            return
        same_rules = settings.auth == self._auth
        self._auth, self._revocations, self._denials = settings.auth, settings.revocations, _denials(settings)
        if same_rules:  # and the others need not be asked about again
            self._known.keep(self._holds)
        else:
            self._known.clear()
        self._end(self._endings.of(lambda principal: not self._holds(principal)))

    async def read_log_out(self, token: str) -> LogOut:
        """Whom an issuer has logged out, as its token says.

        Raises: CredentialRejected; Refused where that cannot be found out.
        """
        if len(token) > LONGEST_TOKEN:
            raise CredentialRejected(f"the token is longer than {LONGEST_TOKEN} bytes")
        shown = token.encode("utf-8", "surrogatepass")
        answer = await self._found_out(lambda request_id: VerifyLogOut(request_id=request_id, token=shown, auth=self._auth))
        assert isinstance(answer, LogOutVerified)
        return answer.log_out

    def close(self) -> None:
        """Nothing is called back any more."""
        self._checking.cancel()
        if self._timer is not None:
            self._timer.cancel()

    # ---- Authenticator

    def known(self, credential: Credential) -> Principal | None:
        return self._known.find(_digest(credential), _now_ms())

    async def authenticate(self, credential: Credential) -> Principal:
        digest = _digest(credential)
        principal = self._known.find(digest, _now_ms())
        if principal is None:
            principal = await self._checking.join(digest, lambda: self._counted_check(credential, digest))
        return principal

    def on_end(self, principal: Principal, callback: Callable[[], None]) -> Callable[[], None]:
        if not self._holds(principal):  # it was taken back while its stream was being opened
            return asyncio.get_running_loop().call_soon(callback).cancel
        call_off = self._endings.add(principal, callback)
        self._set_timer()
        return call_off

    # ---- checks

    async def _counted_check(self, credential: Credential, digest: bytes) -> Principal:
        outcome = "unavailable"
        principal: Principal | None = None
        try:
            principal, until_ms = await self._check(credential)
            if not self._holds(principal):  # by the settings of now: they may have changed meanwhile
                raise CredentialRejected("who this is has no access")
            self._known.add(digest, principal, until_ms)
            outcome = "accepted"
            return principal
        except CredentialRejected as error:
            outcome = "rejected"
            raise LogInRefused(str(error), principal) from None
        finally:
            metrics.authentications_total.labels(credential.kind.value, outcome).inc()

    async def _check(self, credential: Credential) -> tuple[Principal, int]:
        """(who it is, until when that need not be asked again). Raises: CredentialRejected, Refused."""
        if credential.kind is not CredentialKind.BEARER:
            principal = vouched_principal(credential, self._auth)
            if principal.expires_ms <= _now_ms():  # while its connection was open
                raise CredentialRejected("the certificate has expired")
            return principal, principal.expires_ms
        if len(credential.value) > LONGEST_TOKEN:
            raise CredentialRejected(f"the token is longer than {LONGEST_TOKEN} bytes")
        shown = credential.value.encode("utf-8", "surrogatepass")
        if (owner := principal_of_api_key(shown, self._auth.api_keys)) is not None:
            return owner, owner.expires_ms
        if not self._auth.issuers:
            raise CredentialRejected("the key is of nobody who is known here")
        return await self._verify(shown)

    async def _verify(self, token: bytes) -> tuple[Principal, int]:
        answer = await self._found_out(
            lambda request_id: VerifyToken(request_id=request_id, token=token, auth=self._auth, public_url=self._public_url)
        )
        assert isinstance(answer, TokenVerified)
        return answer.principal, answer.check_again_ms

    async def _found_out(self, question: Callable[[str], object]) -> TokenVerified | LogOutVerified:
        """What the actor finds out, whichever incarnation does. question: to be asked under this id.

        Raises: CredentialRejected, Refused.
        """
        for _ in range(_TRIES):
            try:
                answer = await asyncio.wait_for(self._ask("identity", question(f"identity?{next(self._ids)}")), _ASK_S)
            except LookupError:
                await asyncio.sleep(_RESTART_S)
                continue
            except TimeoutError:
                break
            if isinstance(answer, TokenVerified | LogOutVerified):
                return answer
            if isinstance(answer, TokenRejected):
                raise CredentialRejected(answer.text)
            if not isinstance(answer, VerificationLost):
                raise Refused("upstream_failed", f"who this is cannot be found out: {answer.text}")
            await asyncio.sleep(_RESTART_S)
        raise Refused("upstream_failed", "who this is cannot be found out just now")

    def _holds(self, principal: Principal) -> bool:
        return not self._denials.deny(principal) and still_holds(principal, self._auth)

    # ---- ends

    def _set_timer(self) -> None:
        """One timer for all, at the first end; again after an hour where that is far away, because clocks of days are moved."""
        next_ms = self._endings.next_ms
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if next_ms is not None:
            delay_ms = min(max(next_ms - _now_ms(), 0), _LONGEST_TIMER_MS)
            self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._end_due)

    def _end_due(self) -> None:
        self._timer = None
        self._end(self._endings.due(_now_ms()))
        self._set_timer()

    @staticmethod
    def _end(callbacks: list[Callable[[], None]]) -> None:
        """One that fails must not keep the others open."""
        loop = asyncio.get_running_loop()
        for callback in callbacks:
            try:
                callback()
            except Exception as error:
                loop.call_exception_handler({"message": "an end could not be told", "exception": error})


def _denials(settings: Settings) -> Denials:
    assert settings.auth is not None
    revoked = settings.revocations
    return Denials((*settings.auth.denied_subjects, *revoked.subjects), revoked.fingerprints, revoked.log_outs)


def _digest(credential: Credential) -> bytes:
    """A name of fixed length, so that what is kept is no credential; kinds, ends and groups cannot be taken for one another."""
    shown = "\0".join((credential.kind.value, str(credential.expires_ms), *credential.groups, credential.value))
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).digest()


def _now_ms() -> int:
    return int(time.time() * 1000)
