"""Holds calls of one backend's tools, and what they give, against what the tools say of themselves. Pure.

A schema that cannot be used checks nothing: the server, whose it is, reads the arguments as well.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.jsonrpc import members

from .schema_checks import MOST_SCHEMA_BYTES, SchemaCheck, Uncheckable

ARGUMENTS: Final = "arguments"
RESULTS: Final = "results"
MOST_TOOLS: Final = 10_000
_MOST_BYTES: Final = 16_777_216
"""Of all schemas of a backend that are kept."""
_MOST_READY: Final = 256
_EMPTY: Final = b"{}"


class _Tool(msgspec.Struct):
    name: str
    inputSchema: Raw = Raw(b"")
    outputSchema: Raw = Raw(b"")


class _Page(msgspec.Struct):
    tools: list[_Tool] = []


_decode_page = msgspec.json.Decoder(_Page).decode


class ToolChecks:
    """what: which of ARGUMENTS and RESULTS are checked."""

    def __init__(self, what: frozenset[str]) -> None:
        self._what = what
        self._schemas: dict[str, tuple[bytes, bytes]] = {}  # {tool: (of arguments, of results)}
        self._byte_count = 0
        self._ready: OrderedDict[bytes, SchemaCheck | None] = OrderedDict()  # None: cannot be used
        self._unusable: dict[str, str] = {}

    def learn(self, result: bytes) -> None:
        """A page of `tools/list`, as the server has it. Raises: msgspec.DecodeError where it is none."""
        for tool in _decode_page(result).tools:
            schemas = _kept(tool.inputSchema), _kept(tool.outputSchema)
            before = sum(map(len, self._schemas.pop(tool.name, (b"", b""))))
            after = self._byte_count - before + sum(map(len, schemas))
            if len(self._schemas) < MOST_TOOLS and after <= _MOST_BYTES:
                self._schemas[tool.name] = schemas
                self._byte_count = after
            else:
                self._byte_count -= before

    def knows(self, tool: str) -> bool:
        return tool in self._schemas

    def take_unusable(self) -> dict[str, str]:
        """{tool: why its schema is not used} of those since this was asked last."""
        unusable, self._unusable = self._unusable, {}
        return unusable

    def arguments_problem(self, tool: str, params: bytes) -> str | None:
        """What is wrong with the arguments of a call; None where nothing is. Raises: msgspec.DecodeError."""
        if ARGUMENTS not in self._what:
            return None
        check = self._check(tool, self._schemas.get(tool, (b"", b""))[0])
        given = bytes(members(params).get("arguments", Raw(_EMPTY)))
        return None if check is None else check.problem(_EMPTY if given == b"null" else given)

    def result_problem(self, tool: str, result: bytes) -> str | None:
        """The same of what a call has given. An error of a tool, a question and a task are no results that a schema is about.

        Source: MCP 2025-11-25, server/tools, "Output Schema": servers MUST provide structured results that conform.
        """
        if RESULTS not in self._what:
            return None
        check = self._check(tool, self._schemas.get(tool, (b"", b""))[1])
        values = members(result)
        if check is None or bytes(values.get("isError", b"")) == b"true":
            return None
        if "structuredContent" in values:
            return check.problem(bytes(values["structuredContent"]))
        return "has no structured content" if "content" in values else None

    def _check(self, tool: str, schema: bytes) -> SchemaCheck | None:
        if not schema:
            return None
        if schema in self._ready:
            self._ready.move_to_end(schema)
            return self._ready[schema]
        check: SchemaCheck | None = None
        try:
            check = SchemaCheck(schema)
        except Uncheckable as error:
            self._unusable[tool] = str(error)
        self._ready[schema] = check
        if len(self._ready) > _MOST_READY:
            self._ready.popitem(last=False)
        return check


def _kept(schema: Raw) -> bytes:
    """One that is too large to be used is not kept either: a byte more than may be says that."""
    return bytes(schema)[: MOST_SCHEMA_BYTES + 1]
