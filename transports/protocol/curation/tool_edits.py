"""What is said of a tool and asked for it, other than its server says and asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import NULL, members

_encode = msgspec.json.encode


class ToolEdit:
    """override: as `[backends.tools.overrides.NAME]` has it.

    title, description: instead of the server's. annotations: beside the server's, and instead of those of the same name.
    defaults: {argument: value where the client gives none}. fixed: {argument: value whatever the client gives}, which the schema
    does not show.
    """

    def __init__(self, override: Mapping[str, Any]) -> None:
        self._texts = {name: override[name] for name in ("title", "description") if name in override}
        self._annotations: Mapping[str, Any] = override.get("annotations", {})
        self._defaults = _raw(override.get("defaults", {}))
        self._fixed = _raw(override.get("fixed", {}))
        self._fixed_alike = {name.casefold() for name in self._fixed}

    @property
    def gives_arguments(self) -> bool:
        return bool(self._defaults or self._fixed)

    def shown(self, tool: dict[str, Raw]) -> None:
        """Change a tool of a list. Raises: msgspec.DecodeError where its annotations or its schema are none."""
        tool.update(_raw(self._texts))
        if self._annotations:
            given = members(bytes(tool.get("annotations", Raw(b"{}"))))
            tool["annotations"] = Raw(_encode({**given, **self._annotations}))
        if self.gives_arguments and "inputSchema" in tool:
            tool["inputSchema"] = Raw(_encode(self._shown_schema(members(bytes(tool["inputSchema"])))))

    def _shown_schema(self, schema: dict[str, Raw]) -> dict[str, Raw]:
        properties = members(bytes(schema.get("properties", Raw(b"{}"))))
        for name in self._fixed:
            properties.pop(name, None)
        for name, value in self._defaults.items():
            if name in properties and bytes(properties[name]).startswith(b"{"):
                properties[name] = Raw(_encode({**members(bytes(properties[name])), "default": value}))
        if "properties" in schema:
            schema["properties"] = Raw(_encode(properties))
        if "required" in schema:
            given = self._fixed.keys() | self._defaults.keys()
            required = [name for name in msgspec.json.decode(schema["required"], type=list[str]) if name not in given]
            schema["required"] = Raw(_encode(required))
        return schema

    def filled(self, arguments: bytes) -> bytes:
        """The arguments that the server gets. Raises: msgspec.DecodeError where they are neither an object nor null.

        Some servers, Go's above all, take "Path" for "path": what is fixed is so however it is written.
        """
        given = {} if arguments == NULL else members(arguments)
        free = {name: value for name, value in given.items() if name.casefold() not in self._fixed_alike}
        return _encode({**self._defaults, **free, **self._fixed})


def _raw(values: Mapping[str, Any]) -> dict[str, Raw]:
    return {name: Raw(_encode(value)) for name, value in values.items()}
