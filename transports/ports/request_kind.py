"""What is asked of a server, from the client's exchange to the server's wire. Pure."""

from __future__ import annotations

from enum import Enum

from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request


class RequestKind(Enum):
    """REQUEST waits for a response; MESSAGE is acknowledged; STREAM stays open; TERMINATE ends a session."""

    REQUEST = "request"
    MESSAGE = "message"
    STREAM = "stream"
    TERMINATE = "terminate"

    @classmethod
    def of(cls, message: Message | None) -> RequestKind:
        """How a message is sent that opens no stream."""
        return cls.REQUEST if isinstance(message, Request) else cls.MESSAGE
