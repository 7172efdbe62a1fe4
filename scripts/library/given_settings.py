"""What a program says of the gateway that it wants, as the settings of a file. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

Backend = str | Sequence[str] | Mapping[str, Any]
"""The URL of a server, the command of a stdio server, or a table with the keys of `[[backends]]`."""

Backends = Mapping[str, Backend] | Sequence[Mapping[str, Any]]
"""By name, or a list of tables as `[[backends]]` has them."""

SOURCE: Final = "Gateway(...)"
"""What errors name in place of a file."""

_DEMO: Final = {"name": "demo", "prefix": "", "builtin": "demo"}
_GATEWAY: Final = {"port": 0, "state_dir": ""}
"""Of a program that says nothing else: a port that is free, and nothing on disk."""


def file_of(backends: Backends | None, tables: Mapping[str, Any]) -> dict[str, Any]:
    """What `settings_from_mapping` takes; what is of no kind that we know is handed on, for it to say so.

    tables: of the file, by name, without the backends; {"gateway": {"port": 4000}}.
    """
    gateway = tables.get("gateway", {})
    merged = {**_GATEWAY, **gateway} if isinstance(gateway, Mapping) else gateway
    return {**tables, "gateway": merged, "backends": [_DEMO] if backends is None else _tables_of(backends)}


def _tables_of(backends: Backends) -> Any:
    if isinstance(backends, Mapping):
        return [_table_of(name, backend) for name, backend in backends.items()]
    return _as_array(backends)


def _table_of(name: str, backend: Backend) -> Any:
    match backend:
        case str():
            return {"name": name, "replicas": [backend]}
        case Mapping():
            return {"name": name, **backend}
        case _:
            return {"name": name, "command": _as_array(backend)}


def _as_array(value: object) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
