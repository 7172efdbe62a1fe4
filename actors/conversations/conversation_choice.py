"""Which conversation serves a request. Pure."""

from __future__ import annotations

from mcp_gateway.actors.messages.calls import CallKind
from mcp_gateway.transports.ports.edge_port import AnswerSink, Exchange
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.mcp.revisions import LIST_MEMBERS, is_modern

from .conversation import Conversation
from .desk import Desk
from .gathering import Discover, ListAll, SetLevel
from .listening import Listen, ListenAlone
from .relay import RelayRequest
from .session_opening import OpenSession


def conversation_for(exchange: Exchange, sink: AnswerSink, desk: Desk) -> Conversation:
    """The conversation that serves an exchange whose message is a request.

    Raises: Refused.
    """
    message = exchange.message
    assert isinstance(message, Request)
    namings = desk.namings(exchange.endpoint)
    if not namings:
        raise Refused("no_backend", "no backend is configured", request_id=message.id)
    stands_alone = len(namings) == 1 and (bool(exchange.endpoint) or not namings[0].prefix)
    method = message.method
    if method == "initialize" and not is_modern(exchange.revision):
        return OpenSession(exchange, sink, desk)
    if method == "subscriptions/listen":
        return (
            ListenAlone(exchange, sink, desk, namings[0].backend, CallKind.STREAM)
            if stands_alone
            else Listen(exchange, sink, desk)
        )
    if stands_alone:
        return RelayRequest(exchange, sink, desk, namings[0].backend)
    if method in LIST_MEMBERS:
        return ListAll(exchange, sink, desk)
    if method == "server/discover":
        return Discover(exchange, sink, desk)
    if method == "logging/setLevel":
        return SetLevel(exchange, sink, desk)
    return RelayRequest(exchange, sink, desk, "")
