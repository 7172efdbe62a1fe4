"""The opening of a session in the revisions that have one."""

from __future__ import annotations

import msgspec

from . import jsonrpc
from .jsonrpc import Request
from .refusals import Refused
from .revisions import negotiated_legacy


def initialize_revision(message: Request) -> str:
    """Check an `initialize` and give the revision that the session will speak, if its servers can.

    Raises: Refused with invalid_params.
    Source: MCP 2025-11-25, basic/lifecycle, "Initialization" and "Version Negotiation".
    """
    try:
        params = jsonrpc.members(message.params)
        requested = msgspec.json.decode(params["protocolVersion"], type=str)
        for name in ("capabilities", "clientInfo"):
            msgspec.json.decode(params[name], type=dict[str, msgspec.Raw])
    except (KeyError, msgspec.DecodeError):
        text = "initialize needs protocolVersion (a string), capabilities and clientInfo (objects)"
        raise Refused("invalid_params", text, request_id=message.id) from None
    return negotiated_legacy(requested)
