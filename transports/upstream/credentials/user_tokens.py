"""What users have consented to: kept in the vault, renewed once for all who wait, and asked for anew where it is gone."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import msgspec

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.outbound.guarded_fetch import FetchFailed
from mcp_gateway.transports.ports.consents import ConsentAsked, ConsentFailed
from mcp_gateway.transports.ports.credential_vault import CredentialVault, EntryId, EntryKind, VaultFailed
from mcp_gateway.transports.ports.failure import Failure, Fate
from mcp_gateway.transports.ports.hash_keys import Asker
from mcp_gateway.transports.ports.loop_tasks import SharedTasks
from mcp_gateway.transports.ports.upstream_port import UpstreamError
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.telemetry import metrics

from .authorization_flow import (
    ClientIdentity,
    Flow,
    FlowRefused,
    Grant,
    Terms,
    authorization_url,
    check_takes_flow,
    client_document,
    code_form,
    code_in,
    identity_without_registration,
    refresh_form,
    wanted_scopes,
    with_offline_access,
)
from .authorization_servers import AuthorizationServers, now_ms
from .challenge import Challenge
from .consent_link import LINK_S, ConsentWanted, read_link, sealed_link
from .discovery import AuthorizationServer, MetadataRefused, is_same_issuer, speaks_for
from .token_sources import no_token, not_accepted
from .tokens import TokenRefused, Tokens

CONNECT_PATH: Final = "/mcp/oauth/connect"
CALLBACK_PATH: Final = "/mcp/oauth/callback"
DOCUMENT_PATH: Final = "/mcp/oauth/client.json"
_LEASE_MS: Final = 15_000
"""How long one cell may take to renew a token before another tries: a little more than a fetch."""
_POLL_S: Final = 0.1
_LONGEST_STATE: Final = 200
_MOST_BEGINNING: Final = 16
"""Consents of one cell that ask metadata at a time: whoever has a link may open it as often as it likes."""
_logger = logging.getLogger(__name__)
_Content = TypeVar("_Content", bound=msgspec.Struct)


class UserTokens:
    """A `TokenSource` whose users consent in their browsers. site: what it shares with those of other backends."""

    def __init__(self, backend: BackendSettings, servers: AuthorizationServers, site: ConsentSite) -> None:
        self.backend = backend
        self.servers = servers
        self._site = site
        self._renewing: SharedTasks[str, Tokens | None] = SharedTasks()

    def has_consent(self, principal: str) -> bool:
        """Whether there is something to show. Raises: UpstreamError."""
        return self._grant(principal) is not None

    async def token(self, asker: Asker) -> Tokens | None:
        principal = asker.principal
        grant = self._grant(principal)
        if grant is None or not grant.tokens.ends_soon(now_ms()):
            return None if grant is None else grant.tokens
        return await self._renewing.join(principal, lambda: self._renew(principal, grant.tokens))

    async def another(self, asker: Asker, refused: Tokens | None, challenge: Challenge) -> Tokens:
        principal = asker.principal
        grant = self._grant(principal)
        if grant is None:
            raise self._consent(principal, challenge, ())
        tokens: Tokens | None = grant.tokens
        if tokens != refused:
            assert tokens is not None
            return tokens  # renewed, or consented to, meanwhile
        if challenge.wants_scopes:
            if set(challenge.scopes) <= set(grant.tokens.scopes):
                raise not_accepted()
            raise self._consent(principal, challenge, grant.tokens.scopes)
        tokens = await self._renewing.join(principal, lambda: self._renew(principal, grant.tokens))
        if tokens is None or tokens == refused:
            self._forget(principal)
            raise self._consent(principal, challenge, ())
        return tokens

    def refused_again(self, asker: Asker, refused: Tokens, challenge: Challenge) -> UpstreamError:
        principal = asker.principal
        grant = self._grant(principal)
        if challenge.wants_scopes:
            granted = () if grant is None else grant.tokens.scopes
            return not_accepted() if set(challenge.scopes) <= set(granted) else self._consent(principal, challenge, granted)
        if grant is not None and grant.tokens == refused:
            self._forget(principal)
        return self._consent(principal, challenge, ())

    # ---- parts

    def entry(self, principal: str) -> EntryId:
        return EntryId(EntryKind.GRANT, f"{self.backend.name}\n{principal}", self.backend.name, principal)

    def _grant(self, principal: str) -> Grant | None:
        if not principal and self._site.tells_users_apart:
            raise UpstreamError(Fate.UNAUTHORIZED, "the server is shown who its user is: log in first", reason="forbidden")
        try:
            content = self._site.vault.read(self.entry(principal), now_ms())
        except VaultFailed as error:
            raise no_token(error) from None
        grant = None if content is None else decoded(content, Grant)
        return grant if grant is not None and self._may_show(grant.terms) else None

    def _may_show(self, terms: Terms) -> bool:
        """Whether what was given out on these terms is for the server as it is configured now, which may have moved or be another
        one of that name, and by an authorization server that it may be of. Source: RFC 8707, section 2.
        """
        pinned, resource = self.backend.issuer, self.backend.resource
        is_for_it = terms.resource == resource if resource else speaks_for(terms.resource, self.servers.server_url)
        return is_for_it and (not pinned or is_same_issuer(pinned, terms.issuer))

    def _forget(self, principal: str) -> None:
        """The server takes neither what it was given nor anything newer."""
        _logger.warning(
            "what a user consented to is taken no more, and forgotten",
            extra={"fields": {"backend": self.backend.name, "principal": principal}},
        )
        try:
            self._site.vault.delete(self.entry(principal))
        except VaultFailed as error:
            raise no_token(error) from None

    def _consent(self, principal: str, challenge: Challenge, granted: tuple[str, ...]) -> UpstreamError:
        scopes = wanted_scopes(self.backend.scopes, challenge.scopes, granted, ())
        wanted = ConsentWanted(self.backend.name, principal, scopes, challenge.resource_metadata, now_ms() + int(LINK_S * 1_000))
        made = UpstreamError(Fate.UNAUTHORIZED, f"{self.backend.title or self.backend.name} needs the user's consent")
        url = f"{self._site.base_url}{CONNECT_PATH}?link={sealed_link(self._site.seal, wanted)}"
        made.failure = Failure(Fate.UNAUTHORIZED, made.failure.text, reason="consent_required", consent_url=url)
        metrics.consents_total.labels(self.backend.name, "asked").inc()
        return made

    async def _renew(self, principal: str, former: Tokens) -> Tokens | None:
        """By the refresh token, in one cell of the node: an authorization server that sees one twice takes it for stolen.

        None where the user must consent again. Source: OAuth 2.1 (draft 13), section 4.3.1.
        """
        vault, entry = self._site.vault, self.entry(principal)
        if not former.refresh:
            return None
        try:
            while not vault.lease(entry, now_ms() + _LEASE_MS, now_ms()):
                await asyncio.sleep(_POLL_S)
                if self._grant(principal) is None:
                    return None
            grant = self._grant(principal)
            if grant is None or grant.tokens != former:  # another cell has done it meanwhile
                vault.release(entry)
                return None if grant is None else grant.tokens
            return await self._renewed(principal, grant)
        except VaultFailed as error:
            raise no_token(error) from None

    async def _renewed(self, principal: str, grant: Grant) -> Tokens | None:
        """The same in the cell that has the lease; what is taken back or consented to anew meanwhile stays so.

        Raises: VaultFailed as well.
        """
        vault, entry, terms, former = self._site.vault, self.entry(principal), grant.terms, grant.tokens
        tokens: Tokens | None = None
        try:
            form = refresh_form(grant)
            tokens = await self.servers.token(terms.token_endpoint, terms.client, form, asked=former.scopes, former=former)
        except (TokenRefused, FetchFailed) as error:
            if not isinstance(error, TokenRefused) or not error.is_final:
                vault.release(entry)
                raise no_token(error) from None
            if error.code == "invalid_client":
                self._forget_client(terms.issuer)
        kept = self._grant(principal)
        if kept != grant:
            return None if kept is None else kept.tokens
        if tokens is None:
            vault.delete(entry)
        else:
            vault.write(entry, encoded(Grant(tokens, terms)), now_ms())
        return tokens

    # ---- consent

    async def begin(self, wanted: ConsentWanted, browser: str) -> str:
        """As `Consents.begin`."""
        try:
            resource, server = await self.servers.discover(wanted.resource_metadata)
            check_takes_flow(server, allow_http=self.backend.allow_private)
            client = await self._client(server)
            scopes = with_offline_access(wanted.scopes or resource.scopes, server)
            flow = Flow(
                backend=wanted.backend,
                principal=wanted.principal,
                browser=_hash(browser),
                verifier=secrets.token_urlsafe(48),
                redirect_uri=self._site.redirect_uri,
                scopes=scopes,
                names_issuer=server.names_issuer,
                terms=Terms(server.issuer, server.token_endpoint, self.backend.resource or resource.resource, client),
            )
            state = secrets.token_urlsafe(32)
            url = authorization_url(server, flow, state)
            self._site.vault.write(flow_entry(state), encoded(flow), now_ms(), now_ms() + int(LINK_S * 1_000))
        except VaultFailed as error:
            raise ConsentFailed(str(error), is_ours=True) from None
        except (FlowRefused, MetadataRefused, FetchFailed) as error:
            raise ConsentFailed(str(error)) from None
        return url

    async def finish(self, flow: Flow, answer: Mapping[str, str]) -> None:
        """Exchange the code, and keep what it gives."""
        try:
            code = code_in(answer, flow)
            tokens = await self.servers.token(
                flow.terms.token_endpoint, flow.terms.client, code_form(flow, code), asked=flow.scopes
            )
            self._site.vault.write(self.entry(flow.principal), encoded(Grant(tokens, flow.terms)), now_ms())
        except VaultFailed as error:
            raise ConsentFailed(str(error), is_ours=True) from None
        except TokenRefused as error:
            if error.code == "invalid_client":
                self._forget_client(flow.terms.issuer)
            raise ConsentFailed(str(error)) from None
        except (FlowRefused, FetchFailed) as error:
            raise ConsentFailed(str(error)) from None

    async def _client(self, server: AuthorizationServer) -> ClientIdentity:
        """Whom the gateway is there; registered where nothing else is known."""
        metadata_url = self._site.metadata_url
        known = identity_without_registration(server, self.servers.configured_client(), metadata_url)
        if known is not None:
            return known
        entry = self._client_entry(server.issuer)
        content = self._site.vault.read(entry, now_ms())
        registered = None if content is None else decoded(content, ClientIdentity)
        if registered is None:
            registered = await self.servers.register(server, self._site.redirect_uri)
            self._site.vault.write(entry, encoded(registered), now_ms())
        return registered

    def _client_entry(self, issuer: str) -> EntryId:
        """An address of ours that has changed needs a registration of its own: the redirect must be one of the registered."""
        return EntryId(EntryKind.CLIENT, f"{self.backend.name}\n{issuer}\n{self._site.redirect_uri}", self.backend.name)

    def _forget_client(self, issuer: str) -> None:
        try:
            self._site.vault.delete(self._client_entry(issuer))
        except VaultFailed as error:
            raise no_token(error) from None


class ConsentSite:
    """What all backends of a cell share whose users consent. Implements `Consents`.

    base_url:          where browsers reach the gateway.
    tells_users_apart: whether [auth] is there; without it there is one user, "".
    backends:          {name: its tokens} of those that run now.
    """

    def __init__(self, make_vault: Callable[[], CredentialVault], seal: Seal, base_url: str, *, tells_users_apart: bool) -> None:
        self._make_vault = make_vault
        self.seal = seal
        self.base_url = base_url
        self.tells_users_apart = tells_users_apart
        self.backends: dict[str, UserTokens] = {}
        self._beginning = 0

    @functools.cached_property
    def vault(self) -> CredentialVault:
        """Made when somebody needs it: most gateways keep no credentials of users."""
        return self._make_vault()

    @property
    def redirect_uri(self) -> str:
        return f"{self.base_url}{CALLBACK_PATH}"

    @property
    def metadata_url(self) -> str:
        """Our client id where authorization servers can fetch it; "" where they cannot.

        Source: draft-ietf-oauth-client-id-metadata-document-00, section 3: an https URL.
        """
        return f"{self.base_url}{DOCUMENT_PATH}" if self.base_url.startswith("https://") else ""

    def asked_by(self, link: str) -> ConsentAsked:
        wanted = self._wanted(link)
        return ConsentAsked(self.backends[wanted.backend].backend.title or wanted.backend, wanted.principal, wanted.scopes)

    async def begin(self, link: str, browser: str) -> str:
        wanted = self._wanted(link)
        if self._beginning >= _MOST_BEGINNING:
            raise ConsentFailed("many begin at the same time: try again in a moment", is_ours=True)
        self._beginning += 1
        try:
            with _counted(wanted.backend, "begun"):
                return await self.backends[wanted.backend].begin(wanted, browser)
        finally:
            self._beginning -= 1

    async def finish(self, answer: Mapping[str, str], browser: str) -> ConsentAsked:
        state = answer.get("state", "")
        try:
            is_plausible = bool(self.backends) and 0 < len(state) <= _LONGEST_STATE
            content = self.vault.take(flow_entry(state), now_ms()) if is_plausible else None
        except VaultFailed as error:
            raise ConsentFailed(str(error), is_ours=True) from None
        flow = None if content is None else decoded(content, Flow)
        if flow is None:
            raise ConsentFailed("this answer belongs to no consent that is under way: begin again in your client")
        if not secrets.compare_digest(flow.browser, _hash(browser)):
            raise ConsentFailed("this consent was begun in another browser")
        tokens = self.backends.get(flow.backend)
        if tokens is None:
            raise ConsentFailed("that server is not there any more")
        with _counted(flow.backend, "given"):
            await tokens.finish(flow, answer)
        return ConsentAsked(tokens.backend.title or flow.backend, flow.principal, flow.scopes)

    def client_document(self) -> dict[str, Any]:
        return client_document(f"{self.base_url}{DOCUMENT_PATH}", self.redirect_uri)

    def _wanted(self, link: str) -> ConsentWanted:
        wanted = read_link(self.seal, link, now_ms())
        if wanted is None or wanted.backend not in self.backends:
            raise ConsentFailed("this link is not valid any more: begin again in your client")
        return wanted


@contextmanager
def _counted(backend: str, outcome: str) -> Iterator[None]:
    """Count a step of a consent that ends well, or that does not."""
    try:
        yield
    except ConsentFailed:
        metrics.consents_total.labels(backend, "failed").inc()
        raise
    metrics.consents_total.labels(backend, outcome).inc()


def flow_entry(state: str) -> EntryId:
    """By a hash: who reads the vault cannot answer in somebody's place."""
    return EntryId(EntryKind.FLOW, hashlib.sha256(state.encode(errors="replace")).hexdigest(), "")


def encoded(content: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(content)


def decoded(content: bytes, kind: type[_Content]) -> _Content | None:
    """None where it was written by a gateway with another layout: it is asked for anew."""
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.DecodeError:
        return None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
