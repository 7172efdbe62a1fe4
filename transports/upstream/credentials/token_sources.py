"""Tokens that no user need consent to: the gateway's own, and those that a client's is exchanged for."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

import attrs

from mcp_gateway.config.settings import BackendSettings
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.upstream_port import UpstreamError

from .authorization_flow import FlowRefused, client_credentials_form, exchange_form, wanted_scopes
from .authorization_servers import AuthorizationServers, now_ms
from .challenge import Challenge
from .discovery import AuthorizationServer, MetadataRefused
from .tokens import TokenRefused, Tokens

_MOST_EXCHANGED: Final = 10_000


class TokenSource(Protocol):
    """What one backend is shown for each principal ("" where nobody is told apart)."""

    async def token(self, principal: str) -> Tokens | None:
        """What to show at first; None shows nothing, and waits for what the server asks for.

        Raises: UpstreamError.
        """

    async def another(self, principal: str, refused: Tokens | None, challenge: Challenge) -> Tokens:
        """What to show where the server did not accept this; asked once for each exchange.

        Raises: UpstreamError, where there is none.
        """

    def refused_again(self, principal: str, refused: Tokens, challenge: Challenge) -> UpstreamError:
        """What became of the exchange where the server does not accept what `another` gave either."""


class SubjectTokens(Protocol):
    """The tokens that clients have come with."""

    def of(self, principal: str) -> str | None:
        """The newest of this principal; None where it came without, or has gone."""


class GatewayTokens:
    """Client credentials: one token for all who use the backend. Source: RFC 6749, section 4.4."""

    def __init__(self, backend: BackendSettings, servers: AuthorizationServers) -> None:
        self._backend = backend
        self._servers = servers
        self._tokens: Tokens | None = None
        self._asking: SharedTasks[None, Tokens] = SharedTasks()

    async def token(self, principal: str) -> Tokens | None:
        if self._tokens is not None and not self._tokens.ends_soon(now_ms()):
            return self._tokens
        if self._backend.token_url:
            return await self._asking.join(None, lambda: self._ask(Challenge(status=401)))
        return None

    async def another(self, principal: str, refused: Tokens | None, challenge: Challenge) -> Tokens:
        if self._tokens is not None and self._tokens != refused:
            return self._tokens  # somebody else has got it meanwhile
        if refused is not None and challenge.wants_scopes and set(challenge.scopes) <= set(refused.scopes):
            raise not_accepted()
        return await self._asking.join(None, lambda: self._ask(challenge))

    def refused_again(self, principal: str, refused: Tokens, challenge: Challenge) -> UpstreamError:
        return not_accepted()

    async def _ask(self, challenge: Challenge) -> Tokens:
        backend, servers = self._backend, self._servers
        try:
            granted = self._tokens.scopes if self._tokens is not None and challenge.wants_scopes else ()
            server: AuthorizationServer | None = None
            offered: tuple[str, ...] = ()
            endpoint, resource = backend.token_url, backend.resource or servers.server_url
            if not endpoint:
                described, server = await servers.discover(challenge.resource_metadata)
                endpoint, resource, offered = server.token_endpoint, backend.resource or described.resource, described.scopes
            scopes = wanted_scopes(backend.scopes, challenge.scopes, granted, offered)
            form = client_credentials_form(resource, scopes)
            self._tokens = await servers.token(endpoint, servers.configured_identity(server), form, asked=scopes)
        except (TokenRefused, FetchFailed, MetadataRefused, FlowRefused) as error:
            raise no_token(error) from None
        return self._tokens


@attrs.frozen
class _Exchanged:
    subject_token: str = attrs.field(repr=False)
    tokens: Tokens


class ExchangedTokens:
    """Token exchange: for each client's token one that the server takes. Source: RFC 8693.

    Kept for the principals that have used the backend last, and only for as long as the same token is shown by the client.
    """

    def __init__(
        self, backend: BackendSettings, servers: AuthorizationServers, subjects: SubjectTokens, most_kept: int = _MOST_EXCHANGED
    ) -> None:
        self._backend = backend
        self._servers = servers
        self._subjects = subjects
        self._most_kept = most_kept
        self._kept: OrderedDict[str, _Exchanged] = OrderedDict()
        self._asking: SharedTasks[tuple[str, str], Tokens] = SharedTasks()

    async def token(self, principal: str) -> Tokens | None:
        subject_token = self._subject_token(principal)
        kept = self._kept.get(principal)
        if kept is not None and kept.subject_token == subject_token and not kept.tokens.ends_soon(now_ms()):
            self._kept.move_to_end(principal)
            return kept.tokens
        return await self._exchange(principal, subject_token, ())

    async def another(self, principal: str, refused: Tokens | None, challenge: Challenge) -> Tokens:
        if refused is not None and challenge.wants_scopes and set(challenge.scopes) <= set(refused.scopes):
            raise not_accepted()
        return await self._exchange(principal, self._subject_token(principal), challenge.scopes)

    def refused_again(self, principal: str, refused: Tokens, challenge: Challenge) -> UpstreamError:
        return not_accepted()

    def _subject_token(self, principal: str) -> str:
        subject_token = self._subjects.of(principal) if principal else None
        if subject_token is None:
            text = "the server is shown a token that the client's is exchanged for, and the client came without one"
            raise UpstreamError(Fate.UNAUTHORIZED, text, reason="forbidden")
        return subject_token

    async def _exchange(self, principal: str, subject_token: str, challenged: tuple[str, ...]) -> Tokens:
        return await self._asking.join((principal, subject_token), lambda: self._ask(principal, subject_token, challenged))

    async def _ask(self, principal: str, subject_token: str, challenged: tuple[str, ...]) -> Tokens:
        servers, scopes = self._servers, wanted_scopes(self._backend.scopes, challenged, (), ())
        try:
            form = exchange_form(subject_token, self._backend.resource or servers.server_url, scopes)
            tokens = await servers.token(self._backend.token_url, servers.configured_identity(None), form, asked=scopes)
        except (TokenRefused, FetchFailed, FlowRefused) as error:
            raise no_token(error) from None
        self._kept[principal] = _Exchanged(subject_token, tokens)
        self._kept.move_to_end(principal)
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        return tokens


def not_accepted() -> UpstreamError:
    """The server refuses a token that is good and reaches as far as it can."""
    return UpstreamError(Fate.REFUSED, "the server does not accept the token that it was shown", reason="forbidden")


def no_token(error: Exception) -> UpstreamError:
    """There is nothing to show: the authorization server gives none, or cannot be asked. Its own words are in the text."""
    return UpstreamError(Fate.UNAUTHORIZED, f"no token for the server: {error}", reason="upstream_failed")
