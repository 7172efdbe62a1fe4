"""What of the settings may change while a gateway runs, as plain tables: for a file, and for other nodes of a cluster. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from mcp_gateway.config.backend_settings import BackendSettings, LeftOutServer, RouteSettings
from mcp_gateway.config.curation_settings import SearchSettings, ServerSettings
from mcp_gateway.config.identity_settings import ApiKeySettings, AuthSettings, IssuerSettings, PolicySettings
from mcp_gateway.config.settings import Settings


def settings_tables(settings: Settings) -> dict[str, Any]:
    """All but revocations, which go their own way. Headers and environments in it are secrets."""
    return {
        "backends": [attrs.asdict(backend) for backend in settings.backends],
        "routes": [attrs.asdict(route) for route in settings.routes],
        "policies": [attrs.asdict(policy) for policy in settings.policies],
        "servers": [attrs.asdict(server) for server in settings.servers],
        "search": attrs.asdict(settings.search),
        "auth": None if settings.auth is None else attrs.asdict(settings.auth),
        "left_out": [attrs.asdict(server) for server in settings.left_out],
    }


def with_tables(settings: Settings, tables: Mapping[str, Any]) -> Settings:
    """The settings with these tables in place of their own.

    Raises: InvalidSetting, TypeError or KeyError for what another version has written.
    """
    return attrs.evolve(
        settings,
        backends=tuple(BackendSettings(**table) for table in tables["backends"]),
        routes=tuple(RouteSettings(**table) for table in tables["routes"]),
        policies=tuple(PolicySettings(**table) for table in tables["policies"]),
        servers=tuple(ServerSettings(**table) for table in tables["servers"]),
        search=SearchSettings(**tables["search"]),
        auth=None if tables["auth"] is None else _auth(tables["auth"]),
        left_out=tuple(LeftOutServer(**table) for table in tables["left_out"]),
    )


def _auth(table: dict[str, Any]) -> AuthSettings:
    issuers = tuple(IssuerSettings(**each) for each in table["issuers"])
    api_keys = tuple(ApiKeySettings(**each) for each in table["api_keys"])
    return AuthSettings(**{**table, "issuers": issuers, "api_keys": api_keys})


def encoded_tables(settings: Settings) -> bytes:
    """The same for the same settings."""
    return json.dumps(settings_tables(settings), sort_keys=True).encode()


def fingerprint_of(settings: Settings) -> str:
    """What tells the tables of one file from those of another."""
    return hashlib.blake2b(encoded_tables(settings), digest_size=16).hexdigest()
