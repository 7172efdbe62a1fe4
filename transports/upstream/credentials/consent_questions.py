"""The question for consent, as clients of either era read it, and what they are told until there is one. Pure.

Source: MCP 2025-11-25, client/elicitation; MCP 2026-07-28, basic/patterns/mrtr and client/elicitation.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.eras.questions import MAY_NEED_INPUT, capability_problem
from mcp_gateway.transports.protocol.eras.translation import discover_result
from mcp_gateway.transports.protocol.mcp.error_codes import URL_ELICITATION_REQUIRED, json_error
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, members
from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES, negotiated_legacy

_KEY: Final = "mcp-gateway-consent"
_FIRST_WITH_URLS: Final = "2025-11-25"
CONNECT_TOOL: Final = "connect"
_LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
_ELICITATION: Final = "elicitation/create"
_encode = msgspec.json.encode


class Replied(Enum):
    """What a client says to our question, if anything."""

    NOTHING = "nothing"
    ACCEPTED = "accepted"
    DECLINED = "declined"


def may_be_asked(message: Request, handshake: bytes | None, *, is_modern: bool) -> bool:
    """Whether the client takes an address for its user in answer to this. handshake: its `initialize` params, or None without a
    session: then a client of the legacy era has said nothing of itself here, and does not.
    """
    if message.method not in MAY_NEED_INPUT:
        return False
    try:
        if is_modern:
            declared = members(bytes(members(message.params).get("_meta", Raw(b"{}")))).get(META_CLIENT_CAPABILITIES)
            revision = _FIRST_WITH_URLS
        else:
            kept = members(handshake or b"{}")
            declared = kept.get("capabilities")
            revision = negotiated_legacy(msgspec.json.decode(kept.get("protocolVersion", Raw(b'""')), type=str))
        capabilities = {} if declared is None else msgspec.json.decode(declared, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return False
    return revision >= _FIRST_WITH_URLS and not capability_problem(_ELICITATION, {"mode": "url"}, capabilities)


def url_required(name: str, url: str) -> bytes:
    """The error of a legacy revision. Source: client/elicitation, "URL Elicitation Required Error"."""
    asked = {"mode": "url", "elicitationId": _elicitation_id(url), "url": url, "message": _message(name)}
    return json_error(URL_ELICITATION_REQUIRED, _message(name), {"elicitations": [asked]})


def asks_modern_client(name: str, url: str) -> bytes:
    """The result that asks. It carries no state: which call goes on is told by the call itself."""
    params = {"mode": "url", "url": url, "message": _message(name)}
    return _encode({"resultType": "input_required", "inputRequests": {_KEY: {"method": _ELICITATION, "params": params}}})


def reply_in(params: bytes) -> Replied:
    """What a modern client's retry says to our question."""
    if _KEY.encode() not in params:
        return Replied.NOTHING
    try:
        reply = members(bytes(members(params).get("inputResponses", Raw(b"{}")))).get(_KEY)
        action = None if reply is None else members(bytes(reply)).get("action")
    except (msgspec.DecodeError, RecursionError):
        return Replied.NOTHING
    if reply is None:
        return Replied.NOTHING
    return Replied.ACCEPTED if action is not None and bytes(action) == b'"accept"' else Replied.DECLINED


def without_reply(params: bytes) -> bytes:
    """The params as the server shall see them, which has not asked."""
    values = members(params)
    replies = members(bytes(values.pop("inputResponses")))
    replies.pop(_KEY, None)
    if replies:
        values["inputResponses"] = Raw(_encode(replies))
    return _encode(values)


def initialized_without(params: bytes, name: str) -> bytes:
    """The result of `initialize` in the place of a server that says nothing of itself before there is consent."""
    try:
        asked = msgspec.json.decode(members(params).get("protocolVersion", Raw(b'""')), type=str)
    except (msgspec.DecodeError, RecursionError):
        asked = ""
    return _encode({"protocolVersion": negotiated_legacy(asked), **_self_description(name)})


def _self_description(name: str) -> dict[str, Any]:
    return {
        "capabilities": {"tools": {"listChanged": True}, "prompts": {}, "resources": {}},
        "serverInfo": {"name": "mcp-gateway", "version": VERSION},
        "instructions": f"{_message(name)}. Until then its only tool is {CONNECT_TOOL}, which asks for it.",
    }


def told_without(method: str, name: str, *, is_modern: bool) -> bytes | None:
    """What can be told of a server before there is consent: its only tool asks for that. None for what the server must say."""
    if method == "server/discover":
        return _encode(discover_result(_self_description(name)))
    member = _LISTS.get(method)
    if member is None:
        return None
    result: dict[str, Any] = {member: [_connect_tool(name)] if method == "tools/list" else []}
    if is_modern:
        result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    return _encode(result)


def _connect_tool(name: str) -> dict[str, Any]:
    text = f"Log in at {name}. Its tools are listed afterwards."
    return {"name": CONNECT_TOOL, "description": text, "inputSchema": {"type": "object"}}


def _message(name: str) -> str:
    return f"{name} needs your consent to be used through this gateway"


def _elicitation_id(url: str) -> str:
    """Unique, and the same for the same link."""
    return urlsplit(url).query[-32:]
