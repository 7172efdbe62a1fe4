"""A scripted wire to a legacy server: handshakes, messages and farewells are taken at once, requests wait for the test."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import EventHandler, UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request, Response
from mcp_gateway.transports.protocol.sealed.session import FACT_METHODS
from tests.doubles.scripted_wire import ScriptedWire

CAPABILITIES = {"tools": {"listChanged": True}, "resources": {"subscribe": True, "listChanged": True}, "logging": {}}


class HandshakeWire(ScriptedWire):
    """initialized: params of each handshake; told: (session id, message) in order; ended: ids of sessions that were ended.

    takes_messages: while it is not set, what needs no answer waits at the server's door.
    lost_sessions:  ids that the server has forgotten.
    takes_facts:    the same for what sets a level or subscribes; fails_facts: how that ends, where it fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.capabilities: dict[str, Any] = dict(CAPABILITIES)
        self.initialized: list[Any] = []
        self.takes_messages = asyncio.Event()
        self.takes_messages.set()
        self.takes_facts = asyncio.Event()
        self.takes_facts.set()
        self.fails_facts: UpstreamError | None = None
        self.lost_sessions: set[str | None] = set()
        self.told: list[tuple[str | None, Message]] = []
        self.ended: list[str | None] = []
        self._sessions = itertools.count(1)

    async def exchange(self, request: UpstreamRequest, on_event: EventHandler) -> UpstreamAnswer:
        message = request.message
        if request.kind is RequestKind.TERMINATE:
            self.ended.append(request.session_id)
            return UpstreamAnswer(200, None)
        if request.kind is RequestKind.MESSAGE:
            assert message is not None
            await self.takes_messages.wait()
            self.told.append((request.session_id, message))
            return UpstreamAnswer(202, None)
        if isinstance(message, Request) and message.method == "initialize":
            self.initialized.append(json.loads(message.params))
            result = {
                "protocolVersion": "2025-11-25",
                "capabilities": self.capabilities,
                "serverInfo": {"name": "scripted", "version": "1"},
            }
            response = Response(message.id, json.dumps(result).encode(), b"")
            return UpstreamAnswer(200, response, f"s{next(self._sessions)}")
        if isinstance(message, Request) and message.method in FACT_METHODS:
            await self.takes_facts.wait()
            if self.fails_facts is not None:
                raise self.fails_facts
            if request.session_id in self.lost_sessions:
                raise UpstreamError(Fate.SESSION_LOST, "gone")
            self.told.append((request.session_id, message))
            return UpstreamAnswer(200, Response(message.id, b"{}", b""))
        return await super().exchange(request, on_event)

    def told_methods(self) -> list[str]:
        return [getattr(message, "method", "response") for _, message in self.told]

    def watching(self, uri: str) -> set[str | None]:
        """Ids of the sessions that have subscribed a resource and not given it up."""
        sessions: set[str | None] = set()
        for session_id, message in self.told:
            if isinstance(message, Request) and json.loads(message.params or b"{}").get("uri") == uri:
                (sessions.add if message.method == "resources/subscribe" else sessions.discard)(session_id)
        return sessions
