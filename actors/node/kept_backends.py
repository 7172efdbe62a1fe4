"""What an operator may change of a run, as it is now, in a file: for the actor system that follows one that died."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs

from mcp_gateway.config.backend_settings import BackendSettings, LeftOutServer, RouteSettings
from mcp_gateway.config.curation_settings import SearchSettings, ServerSettings
from mcp_gateway.config.identity_settings import ApiKeySettings, AuthSettings, IssuerSettings, PolicySettings, Revocations
from mcp_gateway.config.settings import Settings


def keep_backends(path: Path, settings: Settings) -> None:
    """Write them, as a whole or not at all; readable for this user only, because headers and environments are secrets.

    Raises: OSError
    """
    tables = {
        "backends": [attrs.asdict(backend) for backend in settings.backends],
        "routes": [attrs.asdict(route) for route in settings.routes],
        "policies": [attrs.asdict(policy) for policy in settings.policies],
        "servers": [attrs.asdict(server) for server in settings.servers],
        "search": attrs.asdict(settings.search),
        "auth": None if settings.auth is None else attrs.asdict(settings.auth),
        "revocations": attrs.asdict(settings.revocations),
        "left_out": [attrs.asdict(server) for server in settings.left_out],
    }
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(tables, file)
    fresh.replace(path)


def with_kept_backends(path: Path, settings: Settings) -> Settings:
    """The settings with what was kept last; as they are where nothing was changed."""
    try:
        tables = json.loads(path.read_bytes())
    except FileNotFoundError:
        return settings
    backends = tuple(BackendSettings(**table) for table in tables["backends"])
    routes = tuple(RouteSettings(**table) for table in tables["routes"])
    policies = tuple(PolicySettings(**table) for table in tables["policies"])
    auth = None if tables["auth"] is None else _auth(tables["auth"])
    revocations = Revocations(**tables["revocations"])
    left_out = tuple(LeftOutServer(**table) for table in tables["left_out"])
    return attrs.evolve(
        settings,
        backends=backends,
        routes=routes,
        policies=policies,
        servers=tuple(ServerSettings(**table) for table in tables["servers"]),
        search=SearchSettings(**tables["search"]),
        auth=auth,
        revocations=revocations,
        left_out=left_out,
    )


def _auth(table: dict[str, Any]) -> AuthSettings:
    issuers = tuple(IssuerSettings(**each) for each in table["issuers"])
    api_keys = tuple(ApiKeySettings(**each) for each in table["api_keys"])
    return AuthSettings(**{**table, "issuers": issuers, "api_keys": api_keys})
