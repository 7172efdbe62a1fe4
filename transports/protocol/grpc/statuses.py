"""What ends a gRPC call as what ends a JSON-RPC request, and back. Codes of gRPC are known by their names here.

Source: gRPC, "Status codes and their use in gRPC"; GoogleCloudPlatform/mcp-grpc-transport-py, errors: the code of MCP travels in
the trailing metadata `mcp-error-code`.
"""

from __future__ import annotations

from typing import Final

from mcp_gateway.transports.protocol.mcp.error_codes import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND

ERROR_CODE: Final = "mcp-error-code"
"""Trailing metadata: the code of the JSON-RPC error."""

ERROR_DATA: Final = "mcp-error-data-bin"
"""Trailing metadata: the data of the JSON-RPC error, as JSON. Ours."""

_OF_SERVERS: Final = {
    "INVALID_ARGUMENT": INVALID_PARAMS,
    "OUT_OF_RANGE": INVALID_PARAMS,
    "NOT_FOUND": INVALID_PARAMS,
    "UNIMPLEMENTED": METHOD_NOT_FOUND,
    "FAILED_PRECONDITION": INVALID_REQUEST,
    "ALREADY_EXISTS": INVALID_REQUEST,
    "ABORTED": INTERNAL_ERROR,
    "UNKNOWN": INTERNAL_ERROR,
}
_BY_HTTP: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_BY_CODE: Final = {METHOD_NOT_FOUND: "UNIMPLEMENTED", INVALID_PARAMS: "INVALID_ARGUMENT", INVALID_REQUEST: "INVALID_ARGUMENT"}


def code_of(status: str, told: str | None) -> int | None:
    """The JSON-RPC error that a server's status stands for; None where the call has failed rather than been answered.

    told: what the server has put into `mcp-error-code`.
    """
    if told is not None and told.removeprefix("-").isdecimal() and told.isascii() and len(told) < 12:
        return int(told)
    return _OF_SERVERS.get(status)


def status_of(http_status: int, code: int) -> str:
    """The status that a client of ours reads, for the HTTP status and the JSON-RPC error that others would."""
    return _BY_CODE.get(code) or _BY_HTTP.get(http_status, "INTERNAL")
