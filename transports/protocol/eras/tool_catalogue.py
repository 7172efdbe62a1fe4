"""What the gateway itself must know of a server's tools: which arguments become headers, and which may run twice. Pure.

Source: MCP 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters"; MCP 2025-11-25, schema,
ToolAnnotations: the hints come from the server whose tool it is, so nobody else can be harmed by a false one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
import msgspec

from mcp_gateway.transports.protocol.mcp.jsonrpc import NULL
from mcp_gateway.transports.protocol.mcp.modern_rules import decoded_header, encoded_header
from mcp_gateway.transports.protocol.mcp.refusals import Refused

MOST_ANNOUNCING: Final = 1_000

_KEYWORD: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PRIMITIVES: Final = frozenset({"integer", "string", "boolean"})
_DEPTH: Final = 50

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class _Named(msgspec.Struct):
    name: str


class _Page(msgspec.Struct):
    tools: list[_Named]


_decode_page = msgspec.json.Decoder(_Page).decode


@attrs.frozen
class HeaderParameter:
    """An argument that is repeated in a header. path: the `properties` keys that lead to it. name: of `Mcp-Param-{name}`."""

    path: tuple[str, ...]
    name: str

    @property
    def header(self) -> str:
        return f"mcp-param-{self.name.lower()}"


@attrs.frozen
class KnownTool:
    """problem: why an HTTP client must not offer the tool, or ""."""

    parameters: tuple[HeaderParameter, ...]
    problem: str
    may_repeat: bool


def known_tools(result: bytes) -> dict[str, KnownTool]:
    """The tools on one page of `tools/list`.

    Raises: msgspec.DecodeError where it is no such page.
    """
    listed = _decode_object(result).get("tools")
    tools: dict[str, KnownTool] = {}
    for tool in listed if isinstance(listed, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            tools[tool["name"]] = known_tool(tool)
    return tools


def listed_names(result: bytes) -> list[str]:
    """The names on one page of `tools/list`, without a look at the rest; none where it is no such page."""
    try:
        return [tool.name for tool in _decode_page(result).tools]
    except (msgspec.DecodeError, RecursionError):
        return []


def known_tool(tool: Mapping[str, Any]) -> KnownTool:
    annotations = tool.get("annotations")
    hints = annotations if isinstance(annotations, dict) else {}
    may_repeat = hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True
    try:
        parameters = tuple(_reachable(tool.get("inputSchema"), (), 0))
        _check_whole(tool.get("inputSchema"), parameters)
    except ValueError as error:
        return KnownTool((), str(error), may_repeat)
    return KnownTool(parameters, "", may_repeat)


def without_forbidden_tools(result: bytes) -> tuple[bytes, dict[str, str]]:
    """A page of `tools/list` without the tools that an HTTP client must reject, and {their name: why}."""
    problems = {name: tool.problem for name, tool in known_tools(result).items() if tool.problem}
    if not problems:
        return result, problems
    values = _decode_object(result)
    values["tools"] = [tool for tool in values["tools"] if not (isinstance(tool, dict) and tool.get("name") in problems)]
    return msgspec.json.encode(values), problems


def parameter_headers(tool: KnownTool, arguments: bytes) -> dict[str, str]:
    """{header name in lower case: value} for one call. Absent and null values have no header ("Server Behavior")."""
    if not tool.parameters or not arguments:
        return {}
    values = _decode_object(arguments)
    headers: dict[str, str] = {}
    for parameter in tool.parameters:
        text = _header_text(_argument(values, parameter))
        if text is not None:
            headers[parameter.header] = encoded_header(text)
    return headers


class AnnouncedHeaders:
    """Tools whose server announces headers that it cannot check, being a legacy one: then whoever takes its calls over HTTP must.

    Known is what its lists have said here; at most MOST_ANNOUNCING tools, the latest.
    Source: "Server Behavior for Custom Headers".
    """

    def __init__(self) -> None:
        self._tools: dict[str, KnownTool] = {}

    def note(self, result: bytes) -> None:
        """Read one page of `tools/list`. Cheap where nothing is announced.

        Raises: msgspec.DecodeError where it is no such page.
        """
        if not self._tools and _KEYWORD.encode() not in result:
            return
        for name, tool in known_tools(result).items():
            self._tools.pop(name, None)
            if tool.parameters:
                self._tools[name] = tool
        while len(self._tools) > MOST_ANNOUNCING:
            del self._tools[next(iter(self._tools))]

    def problem(self, name: str, arguments: bytes, headers: Mapping[str, str]) -> str:
        """How the headers of a call disagree with its arguments, or "".

        Raises: msgspec.DecodeError where the arguments are no object.
        """
        tool = self._tools.get(name)
        if tool is None:
            return ""
        values = _decode_object(arguments) if arguments else {}
        for parameter in tool.parameters:
            value = _argument(values, parameter)
            expected = _header_text(value)
            try:
                shown = decoded_header(headers.get(parameter.header), NULL)
            except Refused as refused:
                return refused.text
            if shown != expected and (value is None or expected is not None):
                said = "is missing" if shown is None else f"is {shown[:200]!r}"
                return f"Header mismatch: {parameter.header} {said}, and the argument is {str(expected)[:200]!r}"
        return ""


def _argument(values: Mapping[str, Any], parameter: HeaderParameter) -> Any:
    value: Any = values
    for key in parameter.path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _header_text(value: Any) -> str | None:
    """ "Value Encoding", "Type conversion"; what is no primitive is left to the server, which refuses it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return value if isinstance(value, str) else None


def _reachable(schema: Any, path: tuple[str, ...], depth: int) -> Iterator[HeaderParameter]:
    """The annotations that a chain of `properties` leads to."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or depth > _DEPTH:
        return
    for key, inner in properties.items():
        if not isinstance(inner, dict):
            continue
        if _KEYWORD in inner:
            name = inner[_KEYWORD]
            if not isinstance(name, str) or not _TOKEN.fullmatch(name):
                raise ValueError(f"{_KEYWORD} of {key!r} is no header name")
            if inner.get("type") not in _PRIMITIVES:
                raise ValueError(f"{_KEYWORD} stands at {key!r}, which is neither integer, string nor boolean")
            yield HeaderParameter((*path, key), name)
        yield from _reachable(inner, (*path, key), depth + 1)


def _check_whole(schema: Any, parameters: tuple[HeaderParameter, ...]) -> None:
    """Names are unique without regard to case, and no annotation stands where no chain of `properties` leads."""
    names = [parameter.name.lower() for parameter in parameters]
    if len(set(names)) < len(names):
        raise ValueError(f"two parameters have the same {_KEYWORD}")
    if _count(schema, 0, is_name=False) > len(parameters):
        raise ValueError(f"{_KEYWORD} stands where no chain of properties leads")


def _count(value: Any, depth: int, *, is_name: bool) -> int:
    """Annotations anywhere in the schema. is_name: the keys of `value` are names of properties, not keywords."""
    if depth > 2 * _DEPTH:
        return 0
    if isinstance(value, list):
        return sum(_count(each, depth + 1, is_name=False) for each in value)
    if not isinstance(value, dict):
        return 0
    own = 1 if _KEYWORD in value and not is_name else 0
    return own + sum(
        _count(each, depth + 1, is_name=key == "properties" and not is_name)
        for key, each in value.items()
        if is_name or key not in ("default", "const", "enum", "examples", _KEYWORD)
    )
