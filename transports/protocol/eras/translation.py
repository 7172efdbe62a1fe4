"""What the two eras of MCP call the same things: params, results, errors, capabilities and openings, in both directions. Pure.

*Legacy*: revisions with the `initialize` handshake. *Modern*: 2026-07-28, `_meta` on every request.
Source: MCP 2026-07-28, basic/index "`_meta`", basic/versioning, changelog; MCP 2025-11-25, basic/lifecycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.mcp.error_codes import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    MODERN_ERRORS,
    PARSE_ERROR,
    RESOURCE_NOT_FOUND,
    error_code,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import members
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import (
    CACHEABLE_METHODS,
    LOG_LEVELS,
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_LOG_LEVEL,
    META_SERVER_INFO,
    META_SUBSCRIPTION_ID,
    META_VERSION,
    NEWEST,
    REVISIONS,
)

from .revision_differences import fitted_result
from .tasks import with_extension, with_legacy_tasks

_encode = msgspec.json.encode
_decode = msgspec.json.decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode

_PROTOCOL_FIELDS: Final = (META_VERSION, META_CLIENT_INFO, META_CLIENT_CAPABILITIES, META_LOG_LEVEL)
_ROUND_TRIP_MEMBERS: Final = ("inputResponses", "requestState")
_RESULT_MEMBERS: Final = ("resultType", "ttlMs", "cacheScope")

# What each era has no word for. Source: schema of 2025-11-25 and 2026-07-28, ClientCapabilities and ServerCapabilities.
_LEGACY_ONLY_CAPABILITIES: Final = frozenset({"tasks"})
_MODERN_ONLY_CAPABILITIES: Final = frozenset({"extensions"})

_EXTENSIONS_OF_BOTH_ERAS: Final = frozenset({"io.modelcontextprotocol/ui"})
"""Extensions that legacy handshakes negotiate under `extensions` as well, and that mean the same in both eras.

Source: MCP Apps (ext-apps) 2026-01-26, "Capability Negotiation".
"""

# Source: MCP 2026-07-28, basic/transports/streamable-http, "Protocol Version Header"; basic/index, "Per-request protocol fields".
_MODERN_STATUS: Final = {
    **dict.fromkeys((PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, MISSING_CAPABILITY), 400),
    METHOD_NOT_FOUND: 404,
}


@attrs.frozen(kw_only=True)
class ModernRequest:
    """A request of a modern client, taken apart.

    params:          without `_meta` and without what belongs to round trips.
    meta:            what of `_meta` is no field of the protocol itself: trace context, fields of extensions.
    progress_token:  as JSON, or None.
    input_responses: None where the request carries none.
    """

    params: Mapping[str, Raw] = attrs.field(repr=False)
    meta: Mapping[str, Raw] = attrs.field(repr=False)
    client_info: bytes
    capabilities: Mapping[str, Any]
    log_level: str | None
    progress_token: bytes | None
    input_responses: Mapping[str, Raw] | None = attrs.field(repr=False)
    request_state: str | None = attrs.field(repr=False)

    def legacy_params(self, progress_token: bytes | None) -> bytes:
        """The params for a legacy server; `_meta` holds what it may know, and the token that stands for the client's own."""
        meta = dict(self.meta)
        if progress_token is not None:
            meta["progressToken"] = Raw(progress_token)
        if not meta and not self.params:
            return b""
        return _encode({**self.params, **({"_meta": meta} if meta else {})})


def modern_request(params: bytes, request_id: bytes) -> ModernRequest:
    """Read the params of a modern request.

    Raises: Refused with invalid_params where a field of the protocol is not of its type.
    """
    try:
        values = members(params)
        meta = members(bytes(values.pop("_meta", Raw(b"{}"))))
        info, capabilities = meta.pop(META_CLIENT_INFO, None), meta.pop(META_CLIENT_CAPABILITIES, Raw(b"{}"))
        level, token = meta.pop(META_LOG_LEVEL, None), meta.pop("progressToken", None)
        meta.pop(META_VERSION, None)
        answers, state = values.pop("inputResponses", None), values.pop("requestState", None)
        client_info = _encode(_decode_object(info)) if info is not None else b'{"name":"unknown","version":"0"}'
        return ModernRequest(
            params=values,
            meta=meta,
            client_info=client_info,
            capabilities=_decode_object(capabilities),
            log_level=None if level is None else checked_log_level(level),
            progress_token=None if token is None else _encode(_decode(token, type=int | str)),
            input_responses=None if answers is None else members(bytes(answers)),
            request_state=None if state is None else _decode(state, type=str),
        )
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused("invalid_params", f"the params cannot be read: {error}", request_id=request_id) from None


def checked_log_level(level: bytes | Raw) -> str:
    """Raises: msgspec.ValidationError where it is none. Source: MCP 2026-07-28, server/utilities/logging, "Error Handling"."""
    name: str = _decode(level, type=str)
    if name not in LOG_LEVELS:
        raise msgspec.ValidationError(f"{name[:20]!r} is no log level")
    return name


def modern_params(
    params: bytes, client_info: Any, capabilities: Mapping[str, Any], log_level: str | None, progress_token: bytes | None
) -> dict[str, Raw]:
    """The params of a legacy request as a modern server wants them: `_meta` says who asks.

    progress_token: stands for the client's own where it has given one; it is left out where the client gave none.

    Raises: msgspec.ValidationError where params or their `_meta` are no objects.
    """
    values = {name: value for name, value in members(params).items() if name not in _ROUND_TRIP_MEMBERS}
    meta = members(bytes(values.get("_meta", Raw(b"{}"))))
    meta = {name: value for name, value in meta.items() if name not in _PROTOCOL_FIELDS}
    if "progressToken" in meta and progress_token is not None:
        meta["progressToken"] = Raw(progress_token)
    meta[META_VERSION] = Raw(_encode(NEWEST))
    meta[META_CLIENT_INFO] = Raw(_encode(client_info))
    meta[META_CLIENT_CAPABILITIES] = Raw(_encode(capabilities))
    if log_level is not None:
        meta[META_LOG_LEVEL] = Raw(_encode(log_level))
    values["_meta"] = Raw(_encode(meta))
    return values


def progress_token_of(params: bytes) -> bytes | None:
    """The client's own token as JSON, or None where it has asked for no progress, or in a form that nobody knows."""
    try:
        token = members(bytes(members(params).get("_meta", Raw(b"{}")))).get("progressToken")
        return None if token is None else _encode(_decode(token, type=int | str))
    except (msgspec.DecodeError, RecursionError):
        return None


# ---- capabilities


def modern_client_capabilities(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """`roots.listChanged` has gone with its notification. Source: MCP 2026-07-28, changelog, major change 5."""
    known = {name: value for name, value in capabilities.items() if name not in _LEGACY_ONLY_CAPABILITIES}
    return {**known, "roots": {}} if "roots" in known else known


def modern_server_capabilities(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in capabilities.items() if name not in _LEGACY_ONLY_CAPABILITIES}


def legacy_capabilities(capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a modern client or server, as the other side of a handshake can use them."""
    known = {name: value for name, value in capabilities.items() if name not in _MODERN_ONLY_CAPABILITIES}
    extensions = capabilities.get("extensions")
    if isinstance(extensions, dict):
        shared = {name: value for name, value in extensions.items() if name in _EXTENSIONS_OF_BOTH_ERAS}
        known |= {"extensions": shared} if shared else {}
    return known


# ---- openings


def initialize_params(client_info: bytes, capabilities: Mapping[str, Any], revision: str) -> bytes:
    """The params of the `initialize` that stands for a modern client."""
    known = legacy_capabilities(capabilities)
    return _encode({"protocolVersion": revision, "capabilities": known, "clientInfo": Raw(client_info)})


def discover_result(initialized: Mapping[str, Any]) -> dict[str, Any]:
    """`server/discover`, answered from the result of a legacy server's `initialize`.

    Source: MCP 2026-07-28, server/discover. The versions are the gateway's, which bridges to each of them.
    """
    capabilities = initialized.get("capabilities")
    result: dict[str, Any] = {
        "resultType": "complete",
        "supportedVersions": list(REVISIONS),
        "capabilities": with_extension(modern_server_capabilities(capabilities if isinstance(capabilities, dict) else {})),
        "ttlMs": 0,
        "cacheScope": "private",
    }
    if isinstance(initialized.get("instructions"), str):
        result["instructions"] = initialized["instructions"]
    if isinstance(initialized.get("serverInfo"), dict):
        result["_meta"] = {META_SERVER_INFO: initialized["serverInfo"]}
    return result


def with_own_offers(discovered: bytes) -> bytes:
    """A modern server's `server/discover` with what its clients have here, whatever it can itself: all versions, and tasks.

    Source: MCP 2026-07-28, basic/versioning, "Protocol Version Negotiation": between the two who talk to each other.

    Raises: msgspec.DecodeError where it is no object.
    """
    values = members(discovered)
    if bytes(values.get("capabilities", b"")).startswith(b"{"):
        values["capabilities"] = Raw(_encode(with_extension(_decode_object(values["capabilities"]))))
    return _encode({**values, "supportedVersions": Raw(_encode(REVISIONS))})


def initialize_result(discovered: Mapping[str, Any], revision: str, backend: str) -> dict[str, Any]:
    """`initialize`, answered from the result of a modern server's `server/discover`.

    Source: MCP 2025-11-25, basic/lifecycle, "Initialization". backend: names a server that does not name itself.
    """
    meta, capabilities = discovered.get("_meta"), discovered.get("capabilities")
    info = meta.get(META_SERVER_INFO) if isinstance(meta, dict) else None
    result: dict[str, Any] = {
        "protocolVersion": revision,
        "capabilities": with_legacy_tasks(legacy_capabilities(capabilities if isinstance(capabilities, dict) else {}), revision),
        "serverInfo": info if isinstance(info, dict) else {"name": backend, "version": "unknown"},
    }
    if isinstance(discovered.get("instructions"), str):
        result["instructions"] = discovered["instructions"]
    return fitted_result("initialize", result, revision)


# ---- results and errors


def modern_result(method: str, result: bytes, server_info: bytes) -> bytes:
    """A legacy server's result with what every modern one has. server_info: JSON, or empty where nobody knows it.

    Source: MCP 2026-07-28, basic/index "ResultType" and "Per-response protocol fields"; server/utilities/caching.

    Raises: msgspec.DecodeError where it is no object.
    """
    values = members(result)
    values.setdefault("resultType", Raw(b'"complete"'))
    if method in CACHEABLE_METHODS:
        values.setdefault("ttlMs", Raw(b"0"))
        values.setdefault("cacheScope", Raw(b'"private"'))
    if server_info:
        meta = members(bytes(values.get("_meta", Raw(b"{}"))))
        meta.setdefault(META_SERVER_INFO, Raw(server_info))
        values["_meta"] = Raw(_encode(meta))
    return _encode(values)


def legacy_result(method: str, result: bytes, revision: str) -> bytes:
    """A modern server's result without what a client of this revision has no place for.

    Raises: msgspec.DecodeError where it is no object.
    """
    values = _decode_object(result)
    for name in _RESULT_MEMBERS:
        values.pop(name, None)
    _take_from_meta(values, META_SERVER_INFO)
    return _encode(fitted_result(method, values, revision))


def legacy_notification_params(params: bytes) -> bytes:
    """The params of a notification of a subscription, as a session's stream carries them: without the subscription's id."""
    values = _decode_object(params) if params else {}
    _take_from_meta(values, META_SUBSCRIPTION_ID)
    return _encode(values) if values else b""


def _take_from_meta(values: dict[str, Any], name: str) -> None:
    meta = values.get("_meta")
    if isinstance(meta, dict):
        values["_meta"] = {key: value for key, value in meta.items() if key != name}
        if not values["_meta"]:
            del values["_meta"]


def result_type(result: bytes) -> str:
    """Absent means complete. Source: MCP 2026-07-28, basic/index, "ResultType"."""
    kind = members(result).get("resultType")
    return "complete" if kind is None else str(_decode(kind))


def modern_error(error: bytes) -> tuple[bytes, int]:
    """A legacy server's error with a code of the modern era, and the HTTP status that goes with it.

    Source: MCP 2026-07-28, basic/index, "Error Codes": -32002 became -32602.
    """
    code = error_code(error)
    if code == RESOURCE_NOT_FOUND:
        code, error = INVALID_PARAMS, _with_code(error, INVALID_PARAMS)
    return error, _MODERN_STATUS.get(code or 0, 200)


def legacy_error(method: str, error: bytes) -> bytes:
    """A modern server's error with a code that a legacy client knows.

    Source: MCP 2025-11-25, server/resources, "Error Handling"; the codes of MODERN_ERRORS tell of the gateway's own request.
    """
    code = error_code(error)
    if code == INVALID_PARAMS and method in ("resources/read", "resources/subscribe"):
        return _with_code(error, RESOURCE_NOT_FOUND)
    return _with_code(error, INTERNAL_ERROR) if code in MODERN_ERRORS else error


def _with_code(error: bytes, code: int) -> bytes:
    return _encode({**members(error), "code": code})
