"""The JSON Schema of a configuration file, for editors that complete and check TOML. Pure.

It says what one value may be; what depends on others, `check-config` tells.
Source: JSON Schema 2020-12, Core and Validation.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from .backend_settings import BackendSettings, RouteSettings
from .cluster_settings import ClusterSettings
from .curation_settings import SearchSettings, ServerSettings
from .grpc_settings import GrpcSettings
from .identity_settings import (
    ApiKeySettings,
    AuditSettings,
    AuthSettings,
    IssuerSettings,
    PolicySettings,
    TlsSettings,
)
from .setting_rules import Rule
from .settings import (
    ActorSystemSettings,
    AlertsSettings,
    GatewaySettings,
    HttpSseSettings,
    LimitsSettings,
    LoggingSettings,
    StreamableHttpSettings,
    TelemetrySettings,
    WebSocketSettings,
)

_TABLES: Final[Mapping[str, type[Any]]] = {
    "gateway": GatewaySettings,
    "actor_system": ActorSystemSettings,
    "limits": LimitsSettings,
    "logging": LoggingSettings,
    "alerts": AlertsSettings,
    "telemetry": TelemetrySettings,
    "tls": TlsSettings,
    "cluster": ClusterSettings,
    "audit": AuditSettings,
    "search": SearchSettings,
    "grpc": GrpcSettings,
}
_LISTS: Final[Mapping[str, type[Any]]] = {
    "policies": PolicySettings,
    "backends": BackendSettings,
    "routes": RouteSettings,
    "servers": ServerSettings,
}
_TRANSPORTS: Final[Mapping[str, type[Any]]] = {
    "streamable_http": StreamableHttpSettings,
    "http_sse": HttpSseSettings,
    "websocket": WebSocketSettings,
}
_OF_AUTH: Final[Mapping[str, type[Any]]] = {"issuers": IssuerSettings, "api_keys": ApiKeySettings}
_TOLD = re.compile(r"^\s*([a-z_*]+(?:, [a-z_*]+)*):\s+(.*)$")
"""A line of a docstring that tells of some keys: "cells: processes that serve clients"."""


def json_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    auth = _table(AuthSettings)
    auth["properties"] |= {name: _list(_table(settings_class)) for name, settings_class in _OF_AUTH.items()}
    transports = {name: _table(settings_class) for name, settings_class in _TRANSPORTS.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mcp-gateway",
        **_object(
            {
                **{name: _table(settings_class) for name, settings_class in _TABLES.items()},
                "transports": _object(transports),
                "auth": auth,
                **{name: _list(_table(settings_class)) for name, settings_class in _LISTS.items()},
            }
        ),
    }


def _table(settings_class: type[Any]) -> dict[str, Any]:
    """Of one table: its keys by their rules, with what the class says of them and their defaults."""
    about, told = _words_of(settings_class)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, field in attrs.fields_dict(settings_class).items():
        rule: Any = field.validator
        if not isinstance(rule, Rule):
            continue  # tables of their own
        properties[name] = rule.json_schema()
        if name in told:
            properties[name]["description"] = told[name]
        default: Any = field.default
        if default is attrs.NOTHING:
            required.append(name)
        elif not isinstance(default, attrs.Factory) and default is not None:  # type: ignore[arg-type]
            properties[name]["default"] = list(default) if isinstance(default, tuple) else default
    return {**_object(properties), "description": about, **({"required": required} if required else {})}


def _words_of(settings_class: type[Any]) -> tuple[str, dict[str, str]]:
    """(what a table is for, {key: what it is for}), as its class is documented."""
    first, *lines = inspect.cleandoc(settings_class.__doc__ or "").splitlines()
    told: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if (found := _TOLD.match(line)) is not None:
            names = found[1].split(", ")
            told |= dict.fromkeys(names, found[2])
        elif line.startswith(" ") and names:
            told |= {name: f"{told[name]} {line.strip()}" for name in names}
        else:
            names = []
    return first, told


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _list(table: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": table}
