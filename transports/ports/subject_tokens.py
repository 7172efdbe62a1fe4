"""The tokens that clients have come with, for servers that are shown what such a token is exchanged for. Pure.

A token goes to the authorization server that exchanges it, and never to a server. Source: MCP 2025-11-25, basic/authorization,
"Access Token Privilege Restriction"; RFC 8693.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .authenticator import Authenticator, Credential, CredentialKind
from .hash_keys import Asker
from .principal import Principal

MOST_KEPT: Final = 10_000
"""Tokens of a cell; the one that was not used for the longest time makes room."""


class SubjectTokens:
    """Notes tokens while `is_wanted`; each is found by whoever came with it, and with it only."""

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self.is_wanted = False
        self._most_kept = most_kept
        self._by_credential: OrderedDict[tuple[str, str], tuple[str, int]] = OrderedDict()

    def note(self, principal: Principal, credential: Credential) -> None:
        """A request has come in with this."""
        if not self.is_wanted or credential.kind is not CredentialKind.BEARER or not principal.fingerprint:
            return
        key = (principal.key, principal.fingerprint)
        self._by_credential[key] = (credential.value, principal.expires_ms)
        self._by_credential.move_to_end(key)
        if len(self._by_credential) > self._most_kept:
            self._by_credential.popitem(last=False)

    def of(self, asker: Asker, now_ms: int) -> str | None:
        """The token that the asker's request came with; None where it came without one, or that is over."""
        value, expires_ms = self._by_credential.get((asker.principal, asker.credential), ("", 0))
        return value if now_ms < expires_ms else None


class NotingAuthenticator:
    """An `Authenticator` that notes what clients come with. subjects: what takes the notes."""

    def __init__(self, authenticator: Authenticator, subjects: SubjectTokens) -> None:
        self._authenticator = authenticator
        self._subjects = subjects
        self.on_end = authenticator.on_end

    def known(self, credential: Credential) -> Principal | None:
        principal = self._authenticator.known(credential)
        if principal is not None:
            self._subjects.note(principal, credential)
        return principal

    async def authenticate(self, credential: Credential) -> Principal:
        principal = await self._authenticator.authenticate(credential)
        self._subjects.note(principal, credential)
        return principal
