"""What a server asks of the client: a request of its own in the legacy era, an entry of `inputRequests` in the modern one. Pure.

Source: MCP 2026-07-28, basic/patterns/mrtr; MCP 2025-11-25, client/elicitation, client/sampling, client/roots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.error_codes import INTERNAL_ERROR, METHOD_NOT_FOUND, MISSING_CAPABILITY, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response, members
from mcp_gateway.transports.protocol.mcp.revisions import META_SERVER_INFO

CAPABILITY_FOR: Final = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}
"""The capability that a client declares before a server may ask it this."""

MAY_NEED_INPUT: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Requests that a modern server may answer with `input_required`. Source: basic/patterns/mrtr, "Supported Requests"."""

MOST_OPEN_QUESTIONS: Final = 64
"""Of one call, without an answer: each is a dialog in front of somebody, or a run of a model."""

MOST_QUESTIONS: Final = 1_000
"""Of one call in all: an agent that samples in a loop asks some hundreds. What asks without end is broken, or worse."""

_encode = msgspec.json.encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

# Members of a legacy request that the modern form has no place for. Source: MCP 2026-07-28, changelog, minor change 11; SEP-2663.
_LEGACY_ONLY: Final = ("elicitationId", "task", "_meta")


def can_be_asked(capabilities: Mapping[str, Any]) -> bool:
    return any(name in capabilities for name in CAPABILITY_FOR.values())


def capability_problem(method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """The capabilities that the client lacks for this question, as `requiredCapabilities` shows them; {} where it may be asked.

    Source: MCP 2026-07-28, basic/patterns/mrtr, "Server Requirements", 7; client/elicitation, "Capabilities": an empty
    `elicitation` stands for forms alone.
    """
    name = CAPABILITY_FOR.get(method, "")
    declared = capabilities.get(name)
    if method == "elicitation/create":
        mode = "url" if params.get("mode") == "url" else "form"
        has_mode = isinstance(declared, dict) and (mode in declared or (mode == "form" and "url" not in declared))
        return {} if has_mode else {name: {mode: {}}}
    if not isinstance(declared, dict):
        return {name: {}}
    if method == "sampling/createMessage" and params.get("tools") and "tools" not in declared:
        return {name: {"tools": {}}}
    return {}


def input_request(method: str, params: bytes) -> dict[str, Any]:
    """A legacy server's request as an entry of `inputRequests`.

    Raises: msgspec.DecodeError where params are no object.
    """
    values = _decode_object(params) if params else {}
    for name in _LEGACY_ONLY:
        values.pop(name, None)
    return {"method": method, **({"params": values} if values or method != "roots/list" else {})}


def input_required(inputs: Mapping[str, Mapping[str, Any]], state: str, server_info: bytes) -> bytes:
    """The result that asks the client, and carries what its retry must bring back."""
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": inputs, "requestState": state}
    if server_info:
        result["_meta"] = {META_SERVER_INFO: Raw(server_info)}
    return _encode(result)


@attrs.frozen
class InputRequired:
    """A modern server's `input_required`. requests: {key: (method, params as JSON)}."""

    requests: Mapping[str, tuple[str, bytes]]
    request_state: bytes | None


def read_input_required(result: bytes) -> InputRequired:
    """Raises: msgspec.DecodeError where it is not of that form."""
    values = members(result)
    requests: dict[str, tuple[str, bytes]] = {}
    for key, entry in members(bytes(values.get("inputRequests", Raw(b"{}")))).items():
        fields = members(bytes(entry))
        method: str = msgspec.json.decode(fields.get("method", Raw(b"null")), type=str)
        if method not in CAPABILITY_FOR:
            raise msgspec.ValidationError(f"{method[:50]!r} is nothing that a server may ask")
        params = bytes(fields.get("params", Raw(b"")))
        members(params)
        requests[key] = (method, params)
    state = values.get("requestState")
    if state is None and not requests:
        raise msgspec.ValidationError("input_required without inputRequests and without requestState")
    return InputRequired(requests, None if state is None else bytes(state))


def read_input_requests(task: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """What a modern server's task asks: {key: (method, params as JSON)}; what nobody may ask is left out."""
    found: dict[str, tuple[str, bytes]] = {}
    asked = task.get("inputRequests")
    for key, entry in asked.items() if isinstance(asked, dict) else ():
        if isinstance(entry, dict) and entry.get("method") in CAPABILITY_FOR and isinstance(entry.get("params", {}), dict):
            found[key] = entry["method"], _encode(entry["params"]) if "params" in entry else b""
    return found


def retried_params(params: Mapping[str, Raw], answers: Mapping[str, bytes], request_state: bytes | None) -> bytes:
    """The params of a request's next attempt: the same ones, with the answers and the state that came with the questions."""
    values: dict[str, Any] = dict(params)
    if answers:
        values["inputResponses"] = {key: Raw(answer) for key, answer in answers.items()}
    if request_state is not None:
        values["requestState"] = Raw(request_state)
    return _encode(values)


def input_response(method: str, response: Response) -> bytes | None:
    """A legacy client's response as an entry of `inputResponses`; None where it is an error that has no such form.

    Source: client/elicitation, "Response Actions": a client that cannot show the question has, in effect, dismissed it.
    """
    if response.result:
        return response.result
    return b'{"action":"cancel"}' if method == "elicitation/create" else None


def missing_capability(required: Mapping[str, Any]) -> bytes:
    """Source: MCP 2026-07-28, basic/index, "Per-request protocol fields"."""
    text = "the server asks for what this client has not declared"
    return json_error(MISSING_CAPABILITY, text, {"requiredCapabilities": required})


def refused_question(request: Request, required: Mapping[str, Any]) -> Response:
    """What a legacy server reads that asks a client more than it can. Source: MCP 2025-11-25, client/roots, "Error Handling"."""
    text = f"the client does not support {request.method}" if required else f"{request.method} cannot be asked here"
    return Response(request.id, b"", json_error(METHOD_NOT_FOUND, text))


def one_question_too_many(request: Request) -> Response:
    """What a server reads that asks more during one call than anybody shall answer; the call goes on."""
    return Response(request.id, b"", json_error(INTERNAL_ERROR, "one call has asked too many questions"))


def url_elicitations(error: bytes) -> dict[str, dict[str, Any]]:
    """The questions in a -32042 error (URLElicitationRequiredError of 2025-11-25) as `inputRequests`; {} where there are none."""
    try:
        data = _decode_object(error).get("data")
        listed = data.get("elicitations") if isinstance(data, dict) else None
        found = {
            f"url{number}": input_request("elicitation/create", _encode({**each, "mode": "url"}))
            for number, each in enumerate(listed if isinstance(listed, list) else (), start=1)
            if isinstance(each, dict)
        }
    except msgspec.DecodeError:
        return {}
    return found
