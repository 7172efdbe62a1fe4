"""The HTTP request of a call, from the arguments of its tool. Pure.

Source: OpenAPI 3.1.1, "Parameter Object", "Style Values"; RFC 3986, section 2; RFC 9110, section 5.5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import attrs

from mcp_gateway.transports.upstream.adapted.adapted_conversation import WrongArguments

from .api_description import Body, Operation, Parameter
from .api_schemas import is_json

LONGEST_TARGET: Final = 8_192
_DELIMITERS: Final = {"spaceDelimited": " ", "pipeDelimited": "|", "form": ",", "simple": ","}
_NO_VALUE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]|[^\x00-\xff]")


@attrs.frozen
class ApiRequest:
    """target: path and query, to be put behind the address of the API."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


def request_of(operation: Operation, arguments: Mapping[str, Any]) -> ApiRequest:
    """Raises: WrongArguments"""
    known = {*operation.parameters, *([operation.body.argument] if operation.body is not None else [])}
    if unknown := sorted(arguments.keys() - known):
        raise WrongArguments(f"unknown arguments: {', '.join(unknown)[:500]}; there are {', '.join(sorted(known)) or 'none'}")
    query_names = {each.name for each in operation.parameters.values() if each.place == "query"}
    path, query, headers = operation.path, list[tuple[str, str]](), dict[str, str]()
    for argument, parameter in operation.parameters.items():
        value = arguments.get(argument)
        if value is None:
            if parameter.is_required:
                raise WrongArguments(f"{argument} is missing")
        elif parameter.place == "path":
            path = path.replace(f"{{{parameter.name}}}", _path_value(argument, parameter, value))
        elif parameter.place == "query":
            values = list(_query_values(parameter, value))
            if taken := (query_names - {parameter.name}).intersection(name for name, _ in values):
                raise WrongArguments(f"{argument} has {sorted(taken)[0]!r} in it, which is another argument")
            query += values
        else:
            headers[parameter.name] = _header_value(argument, parameter, value)
    body = b""
    if operation.body is not None:
        given = arguments.get(operation.body.argument)
        if given is None and operation.body.is_required:
            raise WrongArguments(f"{operation.body.argument} is missing")
        if given is not None:
            headers["Content-Type"] = operation.body.media_type
            body = _body_of(operation.body, given)
    if any(segment in (".", "..") for segment in path.split("/")):
        raise WrongArguments("the arguments lead to another path")
    target = f"{path}?{urlencode(query, quote_via=quote)}" if query else path
    if len(target) > LONGEST_TARGET:
        raise WrongArguments(f"the address would be longer than {LONGEST_TARGET} characters")
    return ApiRequest(operation.method, target, headers, body)


def _path_value(argument: str, parameter: Parameter, value: Any) -> str:
    """One segment: nothing in it leads to another path."""
    text = _joined(parameter, value)
    if text in ("", ".", ".."):
        raise WrongArguments(f"{argument} cannot be {text!r}")
    return quote(text, safe="")


def _query_values(parameter: Parameter, value: Any) -> Iterator[tuple[str, str]]:
    name = parameter.name
    if parameter.is_json:
        yield name, json.dumps(value)
    elif isinstance(value, dict) and parameter.style == "deepObject":
        yield from ((f"{name}[{key}]", _scalar(inner)) for key, inner in value.items())
    elif isinstance(value, dict) and parameter.explode:
        yield from ((str(key), _scalar(inner)) for key, inner in value.items())
    elif isinstance(value, list) and parameter.explode:
        yield from ((name, _scalar(inner)) for inner in value)
    else:
        yield name, _joined(parameter, value)


def _header_value(argument: str, parameter: Parameter, value: Any) -> str:
    text = _joined(parameter, value)
    if _NO_VALUE.search(text):
        raise WrongArguments(f"{argument} has characters that no header carries")
    return text


def _joined(parameter: Parameter, value: Any) -> str:
    if parameter.is_json:
        return json.dumps(value)
    delimiter = _DELIMITERS.get(parameter.style, ",")
    if isinstance(value, list):
        return delimiter.join(map(_scalar, value))
    if isinstance(value, dict):
        pairs = [(str(key), _scalar(inner)) for key, inner in value.items()]
        return delimiter.join(f"{key}={inner}" if parameter.explode else f"{key}{delimiter}{inner}" for key, inner in pairs)
    return _scalar(value)


def _scalar(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case int() | float():
            return json.dumps(value)
        case _:
            return json.dumps(value)


def _body_of(body: Body, value: Any) -> bytes:
    kind = body.media_type.partition(";")[0].strip().lower()
    if is_json(kind):
        return json.dumps(value).encode()
    if kind.startswith("text/"):
        return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")
    if not isinstance(value, dict):
        raise WrongArguments(f"{body.argument} is sent as a form: an object is wanted")
    fields = [(key, _scalar(each)) for key, inner in value.items() for each in (inner if isinstance(inner, list) else [inner])]
    return urlencode(fields).encode()
