"""Asks servers and authorization servers what they are, registers the gateway there, and gets tokens from them.

Everything goes through the guarded fetch: who names an address of metadata is a stranger.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.outbound.guarded_fetch import Fetched, FetchFailed, FetchRules, fetch
from mcp_gateway.transports.ports.strategies import url_of
from mcp_gateway.transports.telemetry import metrics

from .authorization_flow import (
    ClientIdentity,
    FlowRefused,
    KnownClient,
    auth_method,
    authenticated,
    chosen_issuer,
    read_registration,
    registration_request,
)
from .discovery import (
    AuthorizationServer,
    MetadataRefused,
    ProtectedResource,
    read_authorization_server,
    read_protected_resource,
    resource_metadata_urls,
    server_metadata_urls,
    undescribed_authorization_server,
    undescribed_resource,
)
from .tokens import TokenRefused, Tokens, read_tokens

_LARGEST_SECRET: Final = 16_384


class Fetch(Protocol):
    """As `guarded_fetch.fetch`."""

    def __call__(
        self,
        url: str,
        *,
        rules: FetchRules,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: object = None,
    ) -> Awaitable[Fetched]: ...


class AuthorizationServers:
    """Those of one backend."""

    def __init__(self, backend: BackendSettings, fetch: Fetch = fetch) -> None:
        self._backend = backend
        self._fetch = fetch
        self._rules = FetchRules(allow_private=backend.allow_private)
        self.server_url = _server_url(backend)

    async def discover(self, told: str) -> tuple[ProtectedResource, AuthorizationServer]:
        """What the server says of itself, and its authorization server. told: where its challenge says that it describes itself.

        Raises: MetadataRefused; FetchFailed.
        """
        resource, is_described = await self._resource(told)
        pinned = self._backend.issuer
        issuer = chosen_issuer(pinned, resource.issuers if is_described or not pinned else (pinned,))
        for url in server_metadata_urls(issuer):
            document = await self._document(url)
            if document is not None:
                return resource, read_authorization_server(document, issuer)
        if not is_described and not pinned:
            return resource, undescribed_authorization_server(self.server_url)
        raise MetadataRefused("the authorization server does not describe itself")

    async def _resource(self, told: str) -> tuple[ProtectedResource, bool]:
        """(what the server says of itself, whether it says anything)."""
        for url in resource_metadata_urls(self.server_url, told):
            answer = await self._document(url)
            if answer is not None:
                return read_protected_resource(answer, self.server_url), True
        return undescribed_resource(self.server_url), False

    async def _document(self, url: str) -> bytes | None:
        """None where there is none under this address. Raises: FetchFailed where nobody can tell."""
        answer = await self._fetch(url, rules=self._rules)
        if answer.status == 200:
            return answer.body
        if 400 <= answer.status < 500:
            return None
        raise FetchFailed(f"metadata is answered with status {answer.status}")

    async def register(self, server: AuthorizationServer, redirect_uri: str) -> ClientIdentity:
        """Raises: FlowRefused; FetchFailed."""
        if not server.registration_endpoint:
            raise FlowRefused("the authorization server does not know the gateway, and takes no registration: set client_id")
        request = registration_request(redirect_uri, server)
        answer = await self._fetch(server.registration_endpoint, rules=self._rules, method="POST", json=request)
        return read_registration(answer.status, answer.body, server)

    async def token(
        self,
        endpoint: str,
        client: ClientIdentity,
        form: Mapping[str, str],
        *,
        asked: tuple[str, ...],
        former: Tokens | None = None,
    ) -> Tokens:
        """asked, former: as in `read_tokens`.

        Raises: TokenRefused; FetchFailed.
        """
        body, headers = authenticated(form, client)
        outcome = "unavailable"
        try:
            answer = await self._fetch(endpoint, rules=self._rules, method="POST", form=body, headers=headers)
            tokens = read_tokens(answer.status, answer.body, now_ms(), asked=asked, former=former)
            outcome = "granted"
        except TokenRefused:
            outcome = "refused"
            raise
        finally:
            grant = form["grant_type"].rpartition(":")[2]
            metrics.token_requests_total.labels(self._backend.name, grant, outcome).inc()
        return tokens

    def configured_client(self) -> KnownClient | None:
        """What the operator has configured; the secret is read each time, as it may have been replaced.

        Raises: FlowRefused where its file cannot be read.
        """
        if not self._backend.client_id:
            return None
        return KnownClient(self._backend.client_id, self._secret())

    def configured_identity(self, server: AuthorizationServer | None) -> ClientIdentity:
        """The same as it is shown to this server; to one that is not known, in the way that each must take.

        Raises: FlowRefused.
        """
        known = self.configured_client()
        assert known is not None  # by the rules of the settings
        offered = () if server is None else server.auth_methods
        return ClientIdentity(known.id, known.secret, auth_method(offered, has_secret=bool(known.secret)))

    def _secret(self) -> str:
        path = self._backend.client_secret_file
        if not path:
            return ""
        with suppress(OSError, ValueError):
            with Path(path).expanduser().open(encoding="utf-8") as file:
                secret = file.read(_LARGEST_SECRET).strip()
            if secret:
                return secret
        raise FlowRefused("the gateway's client_secret_file cannot be read")


def _server_url(backend: BackendSettings) -> str:
    """Where metadata is asked for: a WebSocket begins as a request of HTTP at the same origin. Source: RFC 6455, section 1.3.

    A gRPC server has none: its address is what tokens are made out to.
    """
    if backend.grpc:
        return backend.grpc if "://" in backend.grpc else f"http://{backend.grpc}"
    url = backend.base_url if backend.openapi else url_of(backend.replicas[0])
    return f"http{url.removeprefix('ws')}" if url.startswith("ws") else url


def now_ms() -> int:
    return int(time.time() * 1_000)
