"""Whether a request whose connection broke may be sent again: provably, or not at all. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from mcp_gateway.transports.protocol.eras.own_requests import TOOLS_ID
from mcp_gateway.transports.protocol.eras.tool_catalogue import known_tools
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, members
from mcp_gateway.transports.protocol.mcp.revisions import READING_METHODS

# Beside those that read: what they set is the same however often it is set. What `tools/call` does is known to its server alone,
# which may have said so in the tool's annotations.
_REPEATABLE: Final = READING_METHODS | {"logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
MAX_PAGES: Final = 100


def only_reads(request: Request) -> bool:
    """Whether asking twice is as good as asking once. A retry that goes on with a parked call is not: the call is lost."""
    return request.method in _REPEATABLE and not _goes_on(request)


def needs_annotations(request: Request) -> bool:
    return request.method == "tools/call" and not _goes_on(request)


def tools_request(request: Request, cursor: Raw | None) -> Request:
    """The `tools/list` that finds the tool of this call; it says who asks as the call does."""
    meta = members(bytes(members(request.params).get("_meta", Raw(b"{}"))))
    meta.pop("progressToken", None)
    params = {**({"_meta": meta} if meta else {}), **({"cursor": cursor} if cursor is not None else {})}
    return Request(TOOLS_ID, "tools/list", msgspec.json.encode(params) if params else b"")


def may_repeat(result: bytes, name: str) -> bool | None:
    """Whether this page of `tools/list` says that the tool may run twice; None where the tool is not on it."""
    try:
        tool = known_tools(result).get(name)
    except (msgspec.DecodeError, RecursionError):
        return False
    return None if tool is None else tool.may_repeat


def next_cursor(result: bytes) -> Raw | None:
    cursor = members(result).get("nextCursor")
    return None if cursor is None or bytes(cursor) == b"null" else cursor


def tool_name(request: Request) -> str:
    """Raises: KeyError, msgspec.DecodeError where the call names none."""
    name: str = msgspec.json.decode(members(request.params)["name"], type=str)
    return name


def _goes_on(request: Request) -> bool:
    return b'"requestState"' in request.params
