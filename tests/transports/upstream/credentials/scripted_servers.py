"""A fetch that answers from a table, and backends to use it with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from mcp_gateway.config.backend_settings import BackendSettings
from mcp_gateway.transports.outbound.guarded_fetch import Fetched, FetchFailed, FetchRules
from mcp_gateway.transports.upstream.credentials.authorization_servers import AuthorizationServers

SERVER = "https://files.example/mcp"
ISSUER = "https://id.example"
PLACES: dict[str, Any] = {
    "https://files.example/.well-known/oauth-protected-resource/mcp": {
        "resource": SERVER,
        "authorization_servers": [ISSUER],
        "scopes_supported": ["all"],
    },
    f"{ISSUER}/.well-known/oauth-authorization-server": {
        "issuer": ISSUER,
        "authorization_endpoint": f"{ISSUER}/authorize",
        "token_endpoint": f"{ISSUER}/token",
        "registration_endpoint": f"{ISSUER}/register",
    },
    f"{ISSUER}/register": {"client_id": "new"},
    f"{ISSUER}/token": {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt-1"},
}


class ScriptedFetch:
    """places: {URL: answer as JSON, a status, an exception, or a list of those, one for each time}; what is not in it is 404."""

    def __init__(self, **changed: Any) -> None:
        self.places = dict(PLACES)
        self.asked: list[str] = []
        self.forms: list[Mapping[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.rules: list[FetchRules] = []
        self.on_answer: Callable[[], object] = object

    async def __call__(
        self,
        url: str,
        *,
        rules: FetchRules,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> Fetched:
        await asyncio.sleep(0)
        self.asked.append(url)
        self.rules.append(rules)
        if form is not None:
            self.forms.append(form)
            self.headers.append(headers or {})
        self.on_answer()
        return self._answer(self.places.get(url, 404))

    def _answer(self, said: Any) -> Fetched:
        if isinstance(said, list):
            said = said.pop(0)
        if isinstance(said, Exception):
            raise said
        status, body = (said, {}) if isinstance(said, int) else said if isinstance(said, tuple) else (200, said)
        return Fetched(status, {}, json.dumps(body).encode())

    @property
    def token_count(self) -> int:
        return self.asked.count(f"{ISSUER}/token")


def away() -> FetchFailed:
    return FetchFailed("id.example: no answer in time")


def backend(**more: Any) -> BackendSettings:
    return BackendSettings(**{"name": "files", "prefix": "", "replicas": (SERVER,), "auth": "user", **more})


def servers(fetch: ScriptedFetch, **more: Any) -> AuthorizationServers:
    return AuthorizationServers(backend(**more), fetch)
