"""Tokens that no user need consent to: the gateway's own, and those that a client's is exchanged for."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed
from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.hash_keys import Asker
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.subject_tokens import SubjectTokens
from mcp_gateway.transports.ports.upstream_port import UpstreamError

from .authorization_flow import FlowRefused, client_credentials_form, exchange_form, wanted_scopes
from .authorization_servers import AuthorizationServers, now_ms
from .challenge import Challenge
from .discovery import AuthorizationServer, MetadataRefused
from .tokens import TokenRefused, Tokens

_MOST_EXCHANGED: Final = 10_000


class TokenSource(Protocol):
    """What one backend is shown for each who asks."""

    async def token(self, asker: Asker) -> Tokens | None:
        """What to show at first; None shows nothing, and waits for what the server asks for.

        Raises: UpstreamError.
        """

    async def another(self, asker: Asker, refused: Tokens | None, challenge: Challenge) -> Tokens:
        """What to show where the server did not accept this; asked once for each exchange.

        Raises: UpstreamError, where there is none.
        """

    def refused_again(self, asker: Asker, refused: Tokens, challenge: Challenge) -> UpstreamError:
        """What became of the exchange where the server does not accept what `another` gave either."""


class GatewayTokens:
    """Client credentials: one token for all who use the backend. Source: RFC 6749, section 4.4."""

    def __init__(self, backend: BackendSettings, servers: AuthorizationServers) -> None:
        self._backend = backend
        self._servers = servers
        self._tokens: Tokens | None = None
        self._asking: SharedTasks[None, Tokens] = SharedTasks()

    async def token(self, asker: Asker) -> Tokens | None:
        if self._tokens is not None and not self._tokens.ends_soon(now_ms()):
            return self._tokens
        if self._backend.token_url:
            return await self._asking.join(None, lambda: self._ask(Challenge(status=401)))
        return None

    async def another(self, asker: Asker, refused: Tokens | None, challenge: Challenge) -> Tokens:
        if self._tokens is not None and self._tokens != refused:
            return self._tokens  # somebody else has got it meanwhile
        if refused is not None and challenge.wants_scopes and set(challenge.scopes) <= set(refused.scopes):
            raise not_accepted()
        return await self._asking.join(None, lambda: self._ask(challenge))

    def refused_again(self, asker: Asker, refused: Tokens, challenge: Challenge) -> UpstreamError:
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


class ExchangedTokens:
    """Token exchange: for each client's token one that the server takes. Source: RFC 8693.

    Kept for those who have used the backend last; each is shown only what its own token was exchanged for.
    """

    def __init__(
        self, backend: BackendSettings, servers: AuthorizationServers, subjects: SubjectTokens, most_kept: int = _MOST_EXCHANGED
    ) -> None:
        self._backend = backend
        self._servers = servers
        self._subjects = subjects
        self._most_kept = most_kept
        self._kept: OrderedDict[Asker, Tokens] = OrderedDict()
        self._asking: SharedTasks[Asker, Tokens] = SharedTasks()

    async def token(self, asker: Asker) -> Tokens | None:
        subject_token = self._subject_token(asker)
        kept = self._kept.get(asker)
        if kept is not None and not kept.ends_soon(now_ms()):
            self._kept.move_to_end(asker)
            return kept
        return await self._asking.join(asker, lambda: self._ask(asker, subject_token, ()))

    async def another(self, asker: Asker, refused: Tokens | None, challenge: Challenge) -> Tokens:
        if refused is not None and challenge.wants_scopes and set(challenge.scopes) <= set(refused.scopes):
            raise not_accepted()
        subject_token = self._subject_token(asker)
        return await self._asking.join(asker, lambda: self._ask(asker, subject_token, challenge.scopes))

    def refused_again(self, asker: Asker, refused: Tokens, challenge: Challenge) -> UpstreamError:
        return not_accepted()

    def _subject_token(self, asker: Asker) -> str:
        subject_token = self._subjects.of(asker, now_ms())
        if subject_token is None:
            text = "the server is shown a token that the client's is exchanged for, and the client came without one"
            raise UpstreamError(Fate.UNAUTHORIZED, text, reason="forbidden")
        return subject_token

    async def _ask(self, asker: Asker, subject_token: str, challenged: tuple[str, ...]) -> Tokens:
        servers, scopes = self._servers, wanted_scopes(self._backend.scopes, challenged, (), ())
        try:
            form = exchange_form(subject_token, self._backend.resource or servers.server_url, scopes)
            tokens = await servers.token(self._backend.token_url, servers.configured_identity(None), form, asked=scopes)
        except (TokenRefused, FetchFailed, FlowRefused) as error:
            raise no_token(error) from None
        self._kept[asker] = tokens
        self._kept.move_to_end(asker)
        if len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)
        return tokens


def not_accepted() -> UpstreamError:
    """The server refuses a token that is good and reaches as far as it can."""
    return UpstreamError(Fate.REFUSED, "the server does not accept the token that it was shown", reason="forbidden")


def no_token(error: Exception) -> UpstreamError:
    """There is nothing to show: the authorization server gives none, or cannot be asked. Its own words are in the text."""
    return UpstreamError(Fate.UNAUTHORIZED, f"no token for the server: {error}", reason="upstream_failed")
