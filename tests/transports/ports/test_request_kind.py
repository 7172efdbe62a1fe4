"""Kinds of requests: what a message is, where it opens no stream."""

from __future__ import annotations

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Request(b"1", "tools/call", b""), RequestKind.REQUEST),
        (Notification("notifications/initialized", b""), RequestKind.MESSAGE),
        (Response(b"1", b"{}", b""), RequestKind.MESSAGE),
    ],
    ids=["request", "notification", "response"],
)
def test_only_a_request_waits_for_a_response(message: Message, kind: RequestKind) -> None:
    assert RequestKind.of(message) is kind
