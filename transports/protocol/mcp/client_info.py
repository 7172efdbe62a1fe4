"""What a client's program calls itself. Pure.

Source: MCP, `Implementation`: of `initialize`, and since 2026-07-28 in `_meta` of each request.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .jsonrpc import members
from .revisions import META_CLIENT_INFO

MOST_LOOKED_THROUGH_BYTES: Final = 65_536
_LONGEST_NAME: Final = 100


def client_of_session(initialize: bytes) -> tuple[str, str]:
    """(name, version) that the parameters of `initialize` say; "" for what they don't: clients may say anything."""
    return _client_in(initialize, "clientInfo")


def client_of_request(params: bytes) -> tuple[str, str]:
    """(name, version) that a request without a session says. Parameters that are large are not looked through."""
    if len(params) > MOST_LOOKED_THROUGH_BYTES:
        return "", ""
    try:
        meta = members(params).get("_meta")
    except msgspec.MsgspecError:
        return "", ""
    return ("", "") if meta is None else _client_in(bytes(meta), META_CLIENT_INFO)


def _client_in(json_object: bytes, name: str) -> tuple[str, str]:
    try:
        info = msgspec.json.decode(members(json_object).get(name, b"{}"))
    except msgspec.MsgspecError:
        return "", ""
    found = [info.get(key) if isinstance(info, dict) else None for key in ("name", "version")]
    client, version = (each[:_LONGEST_NAME] if isinstance(each, str) else "" for each in found)
    return client, version
