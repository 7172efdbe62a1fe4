"""The bridge to a legacy server over a scripted wire, and clients that speak to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import attrs
import pytest

from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request
from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_VERSION, NEWEST
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.modern_to_legacy import ModernToLegacy
from mcp_gateway.transports.upstream.bridge.parked_calls import ParkedCalls, ParkingLimits
from mcp_gateway.transports.upstream.bridge.task_host import TaskHost
from mcp_gateway.transports.upstream.bridge.task_ledger import TaskLedger, TaskLimits
from tests.doubles.handshake_wire import HandshakeWire
from tests.doubles.scripted_wire import Exchange, settle

SEAL = Seal(b"0123456789abcdef")
REPLICA = ReplicaId("files", "http://a")
ASKING = {"elicitation": {}, "sampling": {}, "roots": {}}
ELICIT = Request(b'"e1"', "elicitation/create", b'{"message":"Who?","requestedSchema":{"type":"object","properties":{}}}')
ACCEPT = {"action": "accept", "content": {"name": "Ada"}}


@attrs.define(slots=False)
class Bridge:
    """The bridge, its wire, and what clients have been told. limits: of parked calls; task_limits: of calls that are tasks."""

    limits: ParkingLimits = attrs.field(factory=ParkingLimits)
    task_limits: TaskLimits = attrs.field(factory=lambda: TaskLimits(prompt_s=0.02))
    has_streams: bool = True
    wire: HandshakeWire = attrs.field(factory=HandshakeWire)
    events: list[Message | None] = attrs.field(factory=list)
    tasks: TaskHost = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        parked, tasks = ParkedCalls(self.limits), TaskLedger(self.task_limits)
        self.site = BridgeSite(cell_name="cell/0", seal=SEAL, parked=parked, tasks=tasks)
        self.bridge = self.started()

    def started(self) -> ModernToLegacy:
        self.tasks = TaskHost(self.site, REPLICA)
        return ModernToLegacy(
            self.wire,
            self.site,
            self.tasks,
            replica=REPLICA,
            revision="2025-11-25",
            has_streams=self.has_streams,
        )

    def send(
        self,
        method: str = "tools/call",
        *,
        params: dict[str, Any] | None = None,
        capabilities: dict[str, Any] | None = None,
        user: str = "",
        ip: str = "1.1.1.1",
        info: str = "c",
        kind: RequestKind = RequestKind.REQUEST,
        timeout_s: float | None = None,
        headers: dict[str, str] | None = None,
        **meta: Any,
    ) -> asyncio.Future[UpstreamAnswer]:
        """A client's request; extra keywords go into `_meta`. headers: of a client that came over HTTP."""
        fields = {
            META_VERSION: NEWEST,
            META_CLIENT_INFO: {"name": info, "version": "1"},
            META_CLIENT_CAPABILITIES: ASKING if capabilities is None else capabilities,
            **meta,
        }
        body = json.dumps({"name": "x", **(params or {}), "_meta": fields}).encode()
        keys = {"ip": ip, **({"user": user} if user else {})}
        request = UpstreamRequest(
            kind=kind,
            message=Request(b'"mine"', method, body),
            revision=NEWEST,
            headers=headers or {},
            has_headers=headers is not None,
            hash_keys=keys,
            timeout_s=timeout_s,
        )

        async def on_event(event: Message | None, event_id: str | None) -> None:
            self.events.append(event)

        task = self.tasks.addressed(request)
        serving = self.bridge.exchange(request, on_event) if task is None else self.tasks.exchange(request, task, on_event)
        return asyncio.ensure_future(serving)

    async def listening(self, **wanted: Any) -> asyncio.Future[UpstreamAnswer]:
        """A subscription to these notifications, whose stream the server has opened."""
        listening = self.send("subscriptions/listen", params={"notifications": wanted}, kind=RequestKind.STREAM)
        await settle()
        assert self.running.request.on_open is not None
        self.running.request.on_open()
        await settle()
        return listening

    def retry(self, asked: dict[str, Any], answers: dict[str, Any] | None = None, **how: Any) -> asyncio.Future[UpstreamAnswer]:
        params = {"requestState": asked["requestState"], **how.pop("params", {})}
        if answers is not None:
            params["inputResponses"] = answers
        return self.send(params=params, **how)

    @property
    def running(self) -> Exchange:
        """The newest request that the server has not answered."""
        return self.wire.open[-1]

    async def parked(self, **how: Any) -> dict[str, Any]:
        """A call whose server has asked for a name; gives what its client was told."""
        call = self.send(**how)
        await settle()
        await self.running.event(ELICIT)
        return shown(await call)


def shown(answer: UpstreamAnswer) -> dict[str, Any]:
    assert answer.response is not None
    result: dict[str, Any] = json.loads(answer.response.result or answer.response.error)
    return result


async def refusal(call: Awaitable[UpstreamAnswer]) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await call
    return raised.value
