"""The official Python SDK's own OAuth flow, with a person who consents to everything, and a count of how often that was asked."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
from mcp.client.auth import OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.doubles.identity_provider import IdentityProvider

_REDIRECT = "http://127.0.0.1:33418/callback"


class Person:
    """Logs in at the provider as `user`. Implements `TokenStorage`.

    client_id: by which its client is known at the provider; "" registers one, for the scopes that it asks for at first.
    asked: the scopes of each login, in their order; tokens: the newest.
    """

    def __init__(self, provider: IdentityProvider, user: str, client_id: str = "") -> None:
        self._provider = provider
        self._user = user
        self._callback = ""
        self._client: OAuthClientInformationFull | None = None
        if client_id:
            self._client = OAuthClientInformationFull(
                client_id=client_id,
                redirect_uris=[_REDIRECT],  # type: ignore[list-item]
                token_endpoint_auth_method="none",
                issuer=provider.issuer,
            )
        self.asked: list[set[str]] = []
        self.tokens: OAuthToken | None = None

    def auth(self, url: str) -> OAuthClientProvider:
        """What the SDK authenticates requests to this URL by."""
        metadata = OAuthClientMetadata(
            client_name="a client of the tests",
            redirect_uris=[_REDIRECT],  # type: ignore[list-item]
            grant_types=["authorization_code", "refresh_token"],
            token_endpoint_auth_method="none",
        )
        return OAuthClientProvider(url, metadata, self, self._follow, self._answer)

    def transport(self, url: str) -> Any:
        """What the SDK connects by to this URL of the gateway."""
        auth = self.auth(url)
        if "/mcp/sse/" in url or url.endswith("/sse"):
            return sse_client(url, auth=auth)
        return streamable_http_client(url, http_client=create_mcp_http_client(auth=auth))

    async def _follow(self, url: str) -> None:
        self.asked.append(set(parse_qs(urlsplit(url).query).get("scope", [""])[0].split()))
        hinted = f"{url}&{urlencode({'login_hint': self._user})}"
        self._callback = await anyio.to_thread.run_sync(self._provider.log_in, hinted, _REDIRECT)

    async def _answer(self) -> AuthorizationCodeResult:
        told = {name: values[0] for name, values in parse_qs(urlsplit(self._callback).query).items()}
        return AuthorizationCodeResult(code=told["code"], state=told.get("state"), iss=told.get("iss"))

    # ---- TokenStorage

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info
