"""Reads an OpenAPI description: which operations there are, as which tools, at which server. Pure.

Source: OpenAPI Specification 3.0.4 and 3.1.1. What one operation has that cannot be followed leaves out that operation alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import attrs

from mcp_gateway.transports.upstream.adapted.adapted_conversation import LARGEST_SCHEMA_BYTES, size_of

from .api_answers import output_schema
from .api_schemas import ReferenceRefused, SchemaWriter, TooComplex, is_json, resolved

MOST_OPERATIONS: Final = 2_000
_LONGEST_TEXT: Final = 4_000
_METHODS: Final = ("get", "put", "post", "delete", "patch")
"""HEAD, OPTIONS and TRACE give nothing that a tool could show."""
_NO_PARAMETERS: Final = frozenset(
    {
        *("accept", "content-type", "authorization"),
        *("connection", "content-length", "cookie", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Source: OpenAPI 3.1.1, "Parameter Object", `name`: header parameters of the first three names are ignored; the others are the
connection's own.
"""
_FORM: Final = "application/x-www-form-urlencoded"
_HINTS: Final = {
    "get": {"readOnlyHint": True},
    "put": {"readOnlyHint": False, "idempotentHint": True},
    "delete": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True},
    "post": {"readOnlyHint": False},
    "patch": {"readOnlyHint": False},
}
"""Source: RFC 9110, sections 9.2.1 and 9.2.2: what is safe and what is idempotent."""


class DescriptionRefused(Exception):
    """No description that can be used; the text says why."""


@attrs.frozen
class Parameter:
    """Where an argument goes. name: as the API has it. place: "path", "query" or "header". style, explode: as in OpenAPI."""

    name: str
    place: str
    is_required: bool
    style: str
    explode: bool
    is_json: bool = False


@attrs.frozen
class Body:
    """What the argument with the body becomes. media_type: JSON, a form, or text."""

    argument: str
    media_type: str
    is_required: bool


@attrs.frozen
class Operation:
    """parameters: {argument of the tool: where it goes}. tool: as `tools/list` has it."""

    method: str
    path: str
    parameters: Mapping[str, Parameter]
    body: Body | None
    tool: Mapping[str, Any]


@attrs.frozen
class Description:
    """base_url: of the API, without a slash at its end. operations: {name of the tool: operation}. left_out: and why."""

    title: str
    summary: str
    base_url: str
    operations: Mapping[str, Operation]
    left_out: tuple[str, ...]


def read_description(document: Any, base_url: str, found_at: str, *, with_outputs: bool = False) -> Description:
    """base_url: as the settings have it; "" is what the description says. found_at: the URL that it comes from, or "" for a file.

    A description that was fetched may only name a server of its own origin: what clients say, and what the gateway shows of
    itself, goes where the operator has said.

    with_outputs: whether tools say what they give: then results have to be checked, as an API need not answer as described.

    Raises: DescriptionRefused
    """
    if not isinstance(document, dict):
        raise DescriptionRefused("it is no object")
    version = document.get("openapi")
    if not isinstance(version, str) or not re.fullmatch(r"3\.[01](?:\.\d+)?(?:-.*)?", version):
        found = f"openapi {version!r}" if version is not None else "swagger" if "swagger" in document else "no `openapi`"
        raise DescriptionRefused(f"it has {found[:100]}, and 3.0 or 3.1 is read")
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise DescriptionRefused("it has no paths")
    info = document["info"] if isinstance(document.get("info"), dict) else {}
    operations, left_out = _operations(document, paths, with_outputs=with_outputs)
    return Description(
        title=_text(info.get("title")),
        summary=_text(info.get("description")),
        base_url=_base_url(document, base_url, found_at),
        operations=operations,
        left_out=tuple(left_out),
    )


# ---- the server


def _base_url(document: Mapping[str, Any], base_url: str, found_at: str) -> str:
    if base_url:
        return base_url.rstrip("/")
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
    url = urljoin(found_at, _with_defaults(str(first.get("url", "/")), first.get("variables")))
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or "{" in url or parts.query or parts.fragment or parts.username is not None:
        raise DescriptionRefused(f"it names {url[:200]!r} as its server, which is no http or https address: set base_url")
    if found_at and (parts.scheme, parts.netloc) != urlsplit(found_at)[:2]:
        raise DescriptionRefused(f"it names {url[:200]!r} as its server, which is of another origin than itself: set base_url")
    return url.rstrip("/")


def _with_defaults(url: str, variables: Any) -> str:
    for name, variable in variables.items() if isinstance(variables, dict) else ():
        if isinstance(variable, dict) and isinstance(variable.get("default"), str):
            url = url.replace(f"{{{name}}}", variable["default"])
    return url


# ---- operations


def _operations(
    document: Mapping[str, Any], paths: Mapping[str, Any], *, with_outputs: bool
) -> tuple[dict[str, Operation], list[str]]:
    found: dict[str, Operation] = {}
    left_out: list[str] = []
    for path, item, method, operation in _each(document, paths, left_out):
        if len(found) >= MOST_OPERATIONS:
            left_out.append(f"all beyond {MOST_OPERATIONS} operations")
            break
        try:
            read = _operation(document, found, path, item, method, operation)
        except (ReferenceRefused, TooComplex, DescriptionRefused) as error:
            left_out.append(f"{method.upper()} {path[:200]}: {error}")
        else:
            if with_outputs and (output := output_schema(document, operation)) is not None:
                read = attrs.evolve(read, tool={**read.tool, "outputSchema": output})
            found[str(read.tool["name"])] = read
    return found, left_out


def _each(
    document: Mapping[str, Any], paths: Mapping[str, Any], left_out: list[str]
) -> Iterator[tuple[str, Mapping[str, Any], str, Mapping[str, Any]]]:
    for path, item in paths.items():
        try:
            item = resolved(document, item)
        except (ReferenceRefused, TooComplex) as error:
            left_out.append(f"{str(path)[:200]}: {error}")
            continue
        if not isinstance(item, dict) or not isinstance(path, str) or not path.startswith("/"):
            continue
        for method in _METHODS:
            if isinstance(operation := item.get(method), dict):
                yield path, item, method, operation


def _operation(
    document: Mapping[str, Any],
    taken: Mapping[str, Operation],
    path: str,
    item: Mapping[str, Any],
    method: str,
    operation: Mapping[str, Any],
) -> Operation:
    writer = SchemaWriter(document)
    properties: dict[str, Any] = {}
    parameters: dict[str, Parameter] = {}
    for given in _parameters(document, item, operation):
        parameter = _parameter(given)
        argument = parameter.name if parameter.name not in parameters else f"{parameter.place}_{parameter.name}"
        parameters[argument] = parameter
        properties[argument] = _described(writer.write(_schema_of(given)), given.get("description"))
    missing = set(re.findall(r"\{([^{}]+)\}", path)) - {each.name for each in parameters.values() if each.place == "path"}
    if missing:
        raise DescriptionRefused(f"nothing is said of {', '.join(sorted(missing))} in its path")
    body = _body(document, operation, writer, properties)
    required = [argument for argument, parameter in parameters.items() if parameter.is_required]
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if needed := [*required, *([body.argument] if body is not None and body.is_required else [])]:
        schema["required"] = needed
    if writer.definitions:
        schema["$defs"] = writer.definitions
    if size_of(schema) > LARGEST_SCHEMA_BYTES:
        schema = {**schema, "properties": {argument: {} for argument in properties}}
        schema.pop("$defs", None)
    if size_of(schema) > LARGEST_SCHEMA_BYTES:
        raise TooComplex(f"arguments that take more than {LARGEST_SCHEMA_BYTES} bytes to describe")
    summary, description = _text(operation.get("summary")), _text(operation.get("description"))
    tool = {
        "name": _free_name(_name(method, path, operation.get("operationId")), taken),
        **({"title": summary[:200]} if summary else {}),
        "description": "\n\n".join(dict.fromkeys(text for text in (summary, description) if text)) or f"{method.upper()} {path}",
        "inputSchema": schema,
        "annotations": {**_HINTS[method], "openWorldHint": True},
    }
    return Operation(method.upper(), path, parameters, body, tool)


def _parameters(document: Mapping[str, Any], item: Mapping[str, Any], operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of the path, and those of the operation, which stand over them. Source: OpenAPI 3.1.1, "Operation Object"."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for given in (item.get("parameters"), operation.get("parameters")):
        for each in given if isinstance(given, list) else ():
            parameter = resolved(document, each)
            if isinstance(parameter, dict) and isinstance(parameter.get("name"), str) and isinstance(parameter.get("in"), str):
                found[parameter["name"], parameter["in"]] = parameter
    return [
        each
        for (name, place), each in found.items()
        if place in ("path", "query") or (place == "header" and name.lower() not in _NO_PARAMETERS)
    ]


def _parameter(given: Mapping[str, Any]) -> Parameter:
    place = given["in"]
    style = given.get("style", "form" if place == "query" else "simple")
    allowed = ("form", "spaceDelimited", "pipeDelimited", "deepObject") if place == "query" else ("simple",)
    if style not in allowed:
        raise DescriptionRefused(f"the style {style!r} of {given['name']!r} is not spoken")
    explode = given.get("explode", style == "form")
    is_required = place == "path" or given.get("required") is True
    return Parameter(given["name"], place, is_required, style, explode is True, isinstance(given.get("content"), dict))


def _schema_of(given: Mapping[str, Any]) -> Any:
    content = given.get("content")
    if isinstance(content, dict):
        media: Any = next(iter(content.values()), {})
        return media.get("schema", {}) if isinstance(media, dict) else {}
    return given.get("schema", {})


def _body(
    document: Mapping[str, Any], operation: Mapping[str, Any], writer: SchemaWriter, properties: dict[str, Any]
) -> Body | None:
    given = resolved(document, operation.get("requestBody"))
    content = given.get("content") if isinstance(given, dict) else None
    if not isinstance(content, dict) or not content:
        return None
    media_type = _media_type(content)
    is_required = given.get("required") is True
    if media_type is None:
        if is_required:
            raise DescriptionRefused(f"a body as {', '.join(map(str, content))[:200]} is not sent")
        return None
    media: Any = content[media_type]
    argument = "body" if "body" not in properties else "request_body"
    schema = writer.write(media.get("schema", {}) if isinstance(media, dict) else {})
    properties[argument] = _described(schema, given.get("description"))
    return Body(argument, media_type, is_required)


def _media_type(content: Mapping[str, Any]) -> str | None:
    """The one that is sent: JSON before forms before text."""
    kinds = {str(name): str(name).partition(";")[0].strip().lower() for name in content}
    for is_it in (is_json, lambda kind: kind == _FORM, lambda kind: kind.startswith("text/")):
        for name, kind in kinds.items():
            if is_it(kind):
                return name
    return "application/json" if "*/*" in kinds.values() and content.get("application/json") is not None else None


def _name(method: str, path: str, operation_id: Any) -> str:
    wanted = operation_id if isinstance(operation_id, str) and operation_id.strip() else f"{method}_{path}"
    return re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_.-]", "_", wanted[:200])).strip("_") or method


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    if name not in taken:
        return name
    return next(each for number in range(2, MOST_OPERATIONS + 2) if (each := f"{name}_{number}") not in taken)


def _described(schema: Any, description: Any) -> Any:
    text = _text(description)
    return {**schema, "description": text} if text and isinstance(schema, dict) else schema


def _text(value: Any) -> str:
    return value.strip()[:_LONGEST_TEXT] if isinstance(value, str) else ""


def read_document(content: bytes) -> Any:
    """JSON, or YAML where the extra `openapi` is installed.

    Raises: DescriptionRefused
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise DescriptionRefused("it is nested too deeply") from None
    except ValueError as error:
        if content.lstrip()[:1] in (b"{", b"["):
            raise DescriptionRefused(f"it is no JSON: {error}") from None
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise DescriptionRefused("it is no JSON, and for YAML pip install 'mcp-gateway[openapi]' is missing") from None
    try:
        return yaml.load(content, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise DescriptionRefused(f"it is neither JSON nor YAML: {str(error).splitlines()[0][:200]}") from None
