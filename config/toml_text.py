"""Writes the backends of a gateway.toml. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from .backend_settings import BackendSettings, LeftOutServer, default_prefix
from .settings import GatewaySettings

_HEAD = """\
# Made by `mcp-gateway import`. Variables are put in with the values that they had then, so there may be secrets in here.
# Every other setting has its default: see config/gateway.toml.
"""


def gateway_toml(backends: Sequence[BackendSettings], left_out: Sequence[LeftOutServer], warnings: Sequence[str]) -> str:
    """A configuration file with these backends; what is left out, and what was passed over, stands in it as comments."""
    return "\n".join((_HEAD, backends_toml(backends, left_out, warnings)))


def backends_toml(backends: Sequence[BackendSettings], left_out: Sequence[LeftOutServer], warnings: Sequence[str]) -> str:
    """The same without words of its own at the beginning."""
    parts: list[str] = []
    if warnings:
        parts.append("".join(f"# passed over: {_on_one_line(warning)}\n" for warning in warnings))
    parts += ["".join(f"{line}\n" for line in _backend_lines(backend)) for backend in backends]
    parts += [f"# left out: {_on_one_line(server.title)}\n#   {_on_one_line(server.reason)}\n" for server in left_out]
    return "\n".join(parts)


def _backend_lines(backend: BackendSettings) -> Iterator[str]:
    """One line for each setting that a file would not have by itself."""
    inherited = attrs.asdict(GatewaySettings(), recurse=False)
    yield "[[backends]]"
    for field in attrs.fields(BackendSettings):
        value = getattr(backend, field.name)
        default: Any = field.default
        if field.name == "prefix":
            default = default_prefix(backend.name, backend.separator)
        elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        default = inherited.get(field.name, default)
        if value != default:
            yield f"{field.name} = {toml_value(value)}"


def toml_value(value: Any) -> str:
    """The value as it stands behind the sign."""
    match value:
        case str():
            return _string(value)
        case bool():
            return "true" if value else "false"
        case Mapping():
            inner = ", ".join(f"{_key(name)} = {toml_value(each)}" for name, each in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _string(name)


def _string(text: str) -> str:
    """A basic string: TOML escapes as JSON does, and has eight digits where four do not suffice. Source: TOML 1.0, "String"."""
    return "".join(each if each.isprintable() else _escape(each) for each in json.dumps(text, ensure_ascii=False))


def _escape(character: str) -> str:
    """What a person who looks at the file would not see."""
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _on_one_line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
