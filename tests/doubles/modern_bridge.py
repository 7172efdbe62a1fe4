"""The bridge to a modern server over a scripted wire, and a legacy client that speaks to it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION, SessionFacts, SessionState, UpstreamSession
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.legacy_to_modern import LegacyToModern
from mcp_gateway.transports.upstream.bridge.task_host import TaskHost
from tests.doubles.legacy_bridge import REPLICA, SEAL
from tests.doubles.scripted_wire import Exchange, ScriptedWire

INFO = {"name": "c", "version": "1"}
CAPABILITIES = {"elicitation": {}, "sampling": {}, "roots": {"listChanged": True}}


class Bridge:
    """One legacy client at the bridge, its server's wire, and what the client has been told."""

    def __init__(self, *, revision: str = "2025-11-25", facts: SessionFacts | None = None, is_http: bool = False) -> None:
        self.wire = ScriptedWire()
        self.site = BridgeSite(cell_name="cell/0", seal=SEAL)
        self.tasks = TaskHost(self.site, REPLICA)
        self.bridge = LegacyToModern(self.wire, self.site, self.tasks, replica=REPLICA, is_http=is_http)
        self.events: list[Message | None] = []
        self.revision = revision
        self.facts = facts or SessionFacts()
        self.capabilities: dict[str, Any] = CAPABILITIES
        self.issued_ms = int(time.time() * 1000)  # the client's session began here, not before this bridge

    def state(self, key: str = "key") -> SessionState:
        params = {"protocolVersion": self.revision, "capabilities": self.capabilities, "clientInfo": INFO}
        upstream = UpstreamSession("files", "http://a", BRIDGED_SESSION + "cell/0", NEWEST)
        return SessionState(
            key, "", self.revision, "", json.dumps(params).encode(), (upstream,), self.facts, issued_ms=self.issued_ms
        )

    def say(
        self,
        message: Message | None,
        *,
        kind: RequestKind = RequestKind.REQUEST,
        key: str = "key",
        timeout_s: float | None = None,
    ) -> asyncio.Future[UpstreamAnswer]:
        request = UpstreamRequest(
            kind=kind,
            message=message,
            revision=NEWEST,
            session_id=BRIDGED_SESSION + "cell/0",
            session=self.state(key),
            timeout_s=timeout_s,
        )

        async def on_event(event: Message | None, event_id: str | None) -> None:
            self.events.append(event)

        return asyncio.ensure_future(self.bridge.exchange(request, on_event))

    def send(self, method: str = "tools/call", *, request_id: bytes = b"1", **params: Any) -> asyncio.Future[UpstreamAnswer]:
        return self.say(Request(request_id, method, json.dumps({"name": "x", **params}).encode()))

    @property
    def running(self) -> Exchange:
        return self.wire.open[-1]

    def asked(self, exchange: Exchange | None = None) -> dict[str, Any]:
        """The params of the newest request at the server."""
        message = (exchange or self.running).request.message
        assert isinstance(message, Request)
        params: dict[str, Any] = json.loads(message.params)
        return params

    def answer(self, result: Any) -> None:
        self.running.answer(json.dumps(result).encode())

    def fail(self, code: int) -> None:
        error = Response(b"1", b"", json.dumps({"code": code, "message": "m"}).encode())
        self.running.result.set_result(UpstreamAnswer(400, error))

    @property
    def question(self) -> Request:
        event = self.events[-1]
        assert isinstance(event, Request)
        return event
