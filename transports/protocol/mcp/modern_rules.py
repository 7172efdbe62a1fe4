"""Rules of the stateless revisions for one POST: required `_meta`, and headers that agree with the body.

Source: MCP 2026-07-28, basic/index "Per-request protocol fields"; basic/transports/streamable-http "Server Validation".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from .jsonrpc import Request, members
from .refusals import Refused
from .revisions import ITEM_MEMBER, META_CLIENT_CAPABILITIES, META_VERSION, MODERN_REVISIONS, REMOVED_METHODS, REVISIONS

_decode_string = msgspec.json.Decoder(str).decode
_decode_meta = msgspec.json.Decoder(dict[str, Any]).decode
_SENTINEL_START, _SENTINEL_END = "=?base64?", "?="


def is_modern_post(version_header: str | None, params: bytes) -> bool:
    """Whether a request asks to be served statelessly, by its header or by its `_meta`; the two must agree, which comes next."""
    return version_header in MODERN_REVISIONS or (META_VERSION.encode() in params and META_VERSION in meta_of(params))


def meta_of(params: bytes) -> dict[str, Any]:
    """`params._meta`, or an empty object where it is absent or something else."""
    try:
        meta = members(params).get("_meta")
        return {} if meta is None else _decode_meta(meta)
    except (msgspec.DecodeError, RecursionError):
        return {}


def check_modern_request(
    request: Request, version_header: str | None, method_header: str | None, name_header: str | None
) -> str | None:
    """Apply the rules in the order of the specification; first failure wins. Gives the item that the request addresses, if any.

    Raises: Refused with invalid_params, header_mismatch, unsupported_version or unknown_method.
    """
    try:
        parameters, version = _checked_meta(request)
    except _MetaLacks as lack:
        if lack.is_version and version_header is not None and version_header not in REVISIONS:
            raise unsupported_version(version_header, request.id) from None
        raise
    _agree("MCP-Protocol-Version", version_header, version, request.id)
    _agree("Mcp-Method", method_header, request.method, request.id)
    item = None
    member = ITEM_MEMBER.get(request.method)
    if member is not None and request.method not in REMOVED_METHODS:
        item = item_of(parameters, member, request.id)
        _agree("Mcp-Name", decoded_header(name_header, request.id), item, request.id)
    _check_spoken(request, version)
    return item


def check_modern_body(request: Request) -> None:
    """Apply the rules to a request that came without headers of its own, on a socket or a stream of messages.

    Raises: Refused with invalid_params, unsupported_version or unknown_method.
    Source: MCP 2026-07-28, basic/transports/stdio "Request Metadata".
    """
    _, version = _checked_meta(request)
    _check_spoken(request, version)


class _MetaLacks(Refused):
    """A required member of `_meta` is absent. is_version: the protocol version is."""

    def __init__(self, missing: list[str], request_id: bytes) -> None:
        super().__init__("invalid_params", f"_meta lacks {' and '.join(missing)}", request_id=request_id)
        self.is_version = META_VERSION in missing


def _checked_meta(request: Request) -> tuple[dict[str, msgspec.Raw], str]:
    """(members of the params, protocol version)."""
    try:
        parameters = members(request.params)
        meta = _decode_meta(parameters["_meta"]) if "_meta" in parameters else {}
    except (msgspec.DecodeError, RecursionError):
        raise Refused("invalid_params", '"_meta" must be an object', request_id=request.id) from None
    missing = [key for key in (META_VERSION, META_CLIENT_CAPABILITIES) if key not in meta]
    if missing:
        raise _MetaLacks(missing, request.id)
    version = meta[META_VERSION]
    if not isinstance(version, str) or not isinstance(meta[META_CLIENT_CAPABILITIES], dict):
        raise Refused(
            "invalid_params", f"{META_VERSION} must be a string, {META_CLIENT_CAPABILITIES} an object", request_id=request.id
        )
    return parameters, version


def _check_spoken(request: Request, version: str) -> None:
    """The version is one of the stateless ones, and has this method: no server is asked what the gateway knows to be gone.

    Source: MCP 2026-07-28, basic/transports/streamable-http, "Protocol Version Header": 404 for a method that is not there.
    """
    if version not in MODERN_REVISIONS:
        raise unsupported_version(version, request.id)
    if request.method in REMOVED_METHODS:
        text = f"Method not found: revision {version} has no {request.method}"
        raise Refused("unknown_method", text, request_id=request.id, status=404)


def item_of(parameters: Mapping[str, msgspec.Raw], member: str, request_id: bytes) -> str:
    """The tool, prompt or resource that the parameters name.

    Raises: Refused with invalid_params where it is absent or no string.
    """
    try:
        return _decode_string(parameters[member])
    except (KeyError, msgspec.DecodeError):
        raise Refused("invalid_params", f'"{member}" must be a string', request_id=request_id) from None


def decoded_header(value: str | None, request_id: bytes) -> str | None:
    """The text that a header value stands for, its Base64 sentinel form decoded ("Value Encoding")."""
    if value is None or not (value.startswith(_SENTINEL_START) and value.endswith(_SENTINEL_END)):
        return value
    try:
        return base64.b64decode(value[len(_SENTINEL_START) : -len(_SENTINEL_END)], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise Refused("header_mismatch", "Header mismatch: broken Base64 in a header value", request_id=request_id) from None


def encoded_header(value: str) -> str:
    """A header value that stands for this text: itself where it is plain ASCII, else its Base64 sentinel form."""
    is_plain = value.isascii() and value.isprintable() and value == value.strip() and not value.startswith(_SENTINEL_START)
    if is_plain:
        return value
    return f"{_SENTINEL_START}{base64.b64encode(value.encode(errors='surrogatepass')).decode()}{_SENTINEL_END}"


def unsupported_version(requested: str, request_id: bytes | None) -> Refused:
    """Source: MCP 2026-07-28, basic/versioning, "Protocol Version Negotiation"."""
    return Refused(
        "unsupported_version",
        "Unsupported protocol version",
        request_id=request_id,
        data={"supported": list(REVISIONS), "requested": requested[:100]},
    )


def _agree(header: str, shown: str | None, expected: str, request_id: bytes) -> None:
    if shown is None:
        raise Refused("header_mismatch", f"Header mismatch: {header} is required", request_id=request_id)
    if shown != expected:
        text = f"Header mismatch: {header} header value {shown[:200]!r} does not match body value {expected[:200]!r}"
        raise Refused("header_mismatch", text, request_id=request_id)
