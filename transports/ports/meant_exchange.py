"""What a client means that calls `search_tools` or `call_tool`: the list of tools, or the tool itself. Pure.

Whatever is asked of an exchange afterwards (policies, routes, limits, metrics) is asked of what is meant.
"""

from __future__ import annotations

from typing import Final

import msgspec

from mcp_gateway.transports.protocol.curation.search_tools import CALL, SEARCH, call_of, question_of
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.merging.naming import route_target

from .edge_port import Exchange
from .hash_keys import HashKeys

_SEARCHING: Final = f"tools/call/{SEARCH}"
_CALLING: Final = f"tools/call/{CALL}"


def as_meant(exchange: Exchange, hash_keys: HashKeys) -> Exchange:
    """The exchange itself where it calls neither of the two.

    Raises: Refused with invalid_params.
    """
    message = exchange.message
    if exchange.target not in (_SEARCHING, _CALLING) or not isinstance(message, Request):
        return exchange
    question = None
    if exchange.target == _SEARCHING:
        message, question = question_of(message)
    else:
        message = call_of(message)
    return msgspec.structs.replace(
        exchange,
        message=message,
        question=question,
        target=route_target(message.method, message.params, message.id),
        hash_keys=hash_keys.with_arguments(exchange.hash_keys, message),
        is_rewritten=True,
    )
