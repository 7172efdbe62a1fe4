"""The codes of JSON-RPC errors, and errors as bytes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

_encode = msgspec.json.encode

# Source: JSON-RPC 2.0, "Error object"; MCP 2026-07-28, basic/index, "Error Codes"; MCP 2025-11-25, server/resources.
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
RESOURCE_NOT_FOUND: Final = -32002
URL_ELICITATION_REQUIRED: Final = -32042
HEADER_MISMATCH: Final = -32020
MISSING_CAPABILITY: Final = -32021
UNSUPPORTED_VERSION: Final = -32022
MODERN_ERRORS: Final = frozenset({HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION})
"""Codes that only a server of the modern era answers. Source: MCP 2026-07-28, basic/index, "Error Codes"."""


class _Coded(msgspec.Struct):
    code: int


_decode_coded = msgspec.json.Decoder(_Coded).decode


def error_code(error: bytes) -> int | None:
    try:
        return _decode_coded(error).code if error else None
    except msgspec.DecodeError:
        return None


def json_error(code: int, message: str, data: Mapping[str, Any] | None = None) -> bytes:
    return _encode({"code": code, "message": message, **({"data": data} if data is not None else {})})
