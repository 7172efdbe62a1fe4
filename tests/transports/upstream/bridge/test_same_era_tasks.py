"""Calls that become tasks of the gateway where client and server are of one era."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.replica_id import ReplicaId
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamError, UpstreamRequest
from mcp_gateway.transports.protocol.eras.server_era import ServerEra
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import META_CLIENT_CAPABILITIES, NEWEST
from mcp_gateway.transports.protocol.sealed.session import SessionState, UpstreamSession
from mcp_gateway.transports.upstream.bridge.bridge_site import BridgeSite
from mcp_gateway.transports.upstream.bridge.era_bridge import EraBridge
from mcp_gateway.transports.upstream.bridge.task_ledger import TaskLedger, TaskLimits
from tests.doubles.handshake_wire import HandshakeWire
from tests.doubles.legacy_bridge import ACCEPT, ELICIT, SEAL, refusal, shown
from tests.doubles.other_cells import OtherCells
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import Exchange, settle

EXTENSION = "io.modelcontextprotocol/tasks"
REPLICA = ReplicaId("b", "http://127.0.0.1:1/mcp")
DONE = b'{"content":[{"type":"text","text":"done"}],"resultType":"complete"}'
TASKS = {"requests": {"tools": {"call": {}}}}
LEGACY, OLDER = "2025-11-25", "2025-06-18"


class Bridge:
    """The bridge to one server, of one era, and a client of the same."""

    def __init__(self, server: str, **limits: Any) -> None:
        self.wire = HandshakeWire()
        self.server = server
        self.site = BridgeSite(cell_name="cell/0", seal=SEAL, tasks=TaskLedger(TaskLimits(**{"prompt_s": 0.02, **limits})))
        self.events: list[Message | None] = []
        self.bridge = EraBridge(
            self.wire, self.site, replica=REPLICA, protocol=server, is_http=True, era=ServerEra(server), uncached=self.wire
        )

    async def on_event(self, event: Message | None, event_id: str | None) -> None:
        self.events.append(event)

    def send(
        self,
        method: str = "tools/call",
        *,
        client: str = "",
        declares: bool = True,
        timeout_s: float = 30.0,
        user: str = "",
        **params: Any,
    ) -> asyncio.Future[UpstreamAnswer]:
        client = client or self.server
        session = None
        if client == NEWEST:
            capabilities = {"extensions": {EXTENSION: {}}} if declares else {}
            params["_meta"] = {META_CLIENT_CAPABILITIES: capabilities, **params.get("_meta", {})}
        else:
            session = SessionState("key", "", client, "", b"{}", (UpstreamSession("b", REPLICA.address, "s1", self.server),))
        message = Request(b"7", method, json.dumps({"name": "x", **params}).encode())
        return self.exchange(message, session=session, timeout_s=timeout_s, hash_keys={"user": user} if user else {})

    def exchange(self, message: Message, **how: Any) -> asyncio.Future[UpstreamAnswer]:
        kind = RequestKind.REQUEST if isinstance(message, Request) else RequestKind.MESSAGE
        request = UpstreamRequest(
            kind=kind,
            message=message,
            revision=self.server,
            session_id=None if self.server == NEWEST else "s1",
            has_headers=True,
            **how,
        )
        return asyncio.ensure_future(self.bridge.exchange(request, self.on_event))

    @property
    def running(self) -> Exchange:
        return self.wire.open[-1]

    def sent(self) -> tuple[str, dict[str, Any]]:
        """(method, params) of the newest request at the server that is not answered."""
        message = self.running.request.message
        assert isinstance(message, Request)
        return message.method, json.loads(message.params or b"{}")

    async def lists(self, *tools: dict[str, Any]) -> None:
        """The server has been asked for its tools, and has these."""
        await settle()
        assert self.sent()[0] == "tools/list"
        self.running.answer(json.dumps({"tools": tools}).encode())
        await settle()

    async def task(self, task_id: str, method: str = "tasks/get", **how: Any) -> dict[str, Any]:
        return shown(await self.send(method, taskId=task_id, **how))


# ---- modern


def modern(**limits: Any) -> Bridge:
    return Bridge(NEWEST, **limits)


async def created(bridge: Bridge, **how: Any) -> str:
    made = shown(await bridge.send(**how))
    assert (made["resultType"], made["status"]) == ("task", "working")
    return str(made["taskId"])


def test_a_modern_clients_call_that_takes_long_becomes_a_task_and_a_quick_one_passes() -> None:
    """Source: SEP-2663, "Capability Negotiation"."""

    async def body() -> None:
        bridge = modern()
        task_id = await created(bridge)
        assert (await bridge.task(task_id))["status"] == "working"
        bridge.running.answer(DONE)
        await settle()
        assert (await bridge.task(task_id))["result"] == json.loads(DONE)
        quick = bridge.send()
        await settle()
        bridge.running.result.set_result(UpstreamAnswer(404, Response(b"7", b"", b'{"code":-32601,"message":"m"}')))
        assert (await quick).status == 404
        assert len(bridge.wire.exchanges) == 2

    on_loop(body)


def test_who_has_not_declared_tasks_waits_and_reads_what_it_lacks() -> None:
    async def body() -> None:
        bridge = modern()
        call = bridge.send(declares=False)
        await asyncio.sleep(0.1)
        assert not call.done()
        bridge.running.answer(DONE)
        assert shown(await call)["resultType"] == "complete"
        for declares, code in ((False, -32021), (True, -32602)):
            unknown = bridge.send("tasks/get", declares=declares, taskId="T1")
            await settle()
            bridge.running.result.set_result(UpstreamAnswer(404, Response(b"7", b"", b'{"code":-32601,"message":"m"}')))
            assert ((await unknown).status, shown(await unknown)["code"]) == (400, code)

    on_loop(body)


def test_who_asked_for_progress_hears_it_while_it_waits_and_nothing_after_that() -> None:
    async def body() -> None:
        bridge = modern()
        call = bridge.send(timeout_s=0.5, _meta={"progressToken": "p"})
        await settle()
        heard = Notification("notifications/progress", b'{"progressToken":"p","progress":1}')
        await bridge.running.event(heard)
        assert shown(await call)["resultType"] == "task"
        await bridge.running.event(Notification("notifications/progress", b'{"progressToken":"p","progress":2}'))
        assert bridge.events == [heard]

    on_loop(body)


def test_a_client_that_does_not_read_holds_no_task_up() -> None:
    async def body() -> None:
        bridge = modern()

        async def never(event: Message | None, event_id: str | None) -> None:
            await asyncio.Event().wait()

        bridge.on_event = never  # type: ignore[method-assign]
        call = bridge.send()
        await settle()
        telling = asyncio.ensure_future(bridge.running.event(Notification("notifications/message", b"{}")))
        assert shown(await call)["resultType"] == "task"
        await telling

    on_loop(body)


def test_what_a_task_asks_is_answered_by_an_update_and_the_call_goes_on() -> None:
    """Source: SEP-2663, "Task Update Requests"; MCP 2026-07-28, basic/patterns/mrtr."""

    async def body() -> None:
        bridge = modern()
        task_id = await created(bridge, arguments={"a": 1})
        question = {"method": "elicitation/create", "params": {"message": "?"}}
        asking = {
            "resultType": "input_required",
            "inputRequests": {"q": question, "r": {"method": "roots/list"}},
            "requestState": "s",
        }
        first = bridge.running.request.message
        bridge.running.answer(json.dumps(asking).encode())
        await settle()
        asked = await bridge.task(task_id)
        assert (asked["status"], list(asked["inputRequests"])) == ("input_required", ["elicitation-1", "roots-2"])
        for key, answer in (("elicitation-1", ACCEPT), ("roots-2", {"roots": []})):
            await bridge.task(task_id, "tasks/update", inputResponses={key: answer})
        await settle()
        method, params = bridge.sent()
        assert method == "tools/call"
        assert (params["inputResponses"], params["requestState"], params["arguments"]) == (
            {"q": ACCEPT, "r": {"roots": []}},
            "s",
            {"a": 1},
        )
        assert bridge.running.request.message != first
        bridge.running.answer(DONE)
        await settle()
        assert (await bridge.task(task_id))["status"] == "completed"

    on_loop(body)


def test_a_server_that_makes_its_own_task_late_is_followed() -> None:
    async def body() -> None:
        bridge = modern()
        task_id = await created(bridge)
        bridge.running.answer(b'{"resultType":"task","taskId":"T1","status":"working","pollIntervalMs":1}')
        async with asyncio.timeout(5):
            while not bridge.wire.open:
                await asyncio.sleep(0.01)
        method, params = bridge.sent()
        assert (method, params["taskId"]) == ("tasks/get", "T1")
        assert EXTENSION in params["_meta"][META_CLIENT_CAPABILITIES]["extensions"]
        bridge.running.answer(b'{"taskId":"T1","status":"completed","result":{"content":[]}}')
        await settle()
        assert (await bridge.task(task_id))["result"] == {"content": []}

    on_loop(body)


@pytest.mark.parametrize("result", [b'{"resultType":"odd"}', b'{"resultType":"input_required"}', b"[1]"])
def test_a_result_that_nobody_can_read_fails_the_task(result: bytes) -> None:
    async def body() -> None:
        bridge = modern()
        task_id = await created(bridge)
        bridge.running.answer(result)
        await settle()
        assert (await bridge.task(task_id))["status"] == "failed"

    on_loop(body)


def test_a_client_that_leaves_takes_its_call_along_and_one_with_a_task_does_not() -> None:
    async def body() -> None:
        bridge = modern(prompt_s=5.0)
        call = bridge.send()
        await settle()
        running = bridge.running
        call.cancel()
        await settle()
        assert running.is_cancelled
        bridge = modern()
        task_id = await created(bridge)
        running = bridge.running
        await bridge.task(task_id, "tasks/cancel")
        await settle()
        assert running.is_cancelled
        assert (await bridge.task(task_id))["status"] == "cancelled"

    on_loop(body)


def test_a_call_beyond_the_limit_of_tasks_is_ended_and_says_so() -> None:
    async def body() -> None:
        bridge = modern(in_all=1)
        await created(bridge)
        assert (await refusal(bridge.send())).failure.reason == "pool_exhausted"
        await settle()
        assert len(bridge.wire.open) == 1

    on_loop(body)


@pytest.mark.parametrize("capabilities", [{"tools": {}}, {}])
def test_tasks_are_announced_where_a_modern_server_has_tools(capabilities: Any) -> None:
    async def body() -> None:
        bridge = modern()
        discovered = bridge.send("server/discover")
        await settle()
        bridge.running.answer(json.dumps({"supportedVersions": [NEWEST], "capabilities": capabilities}).encode())
        announced = shown(await discovered)["capabilities"].get("extensions")
        assert announced == ({EXTENSION: {}} if capabilities else None)

    on_loop(body)


# ---- legacy


async def legacy_task(bridge: Bridge, *tools: dict[str, Any], **how: Any) -> str:
    call = bridge.send(task={"ttl": 60_000}, **how)
    await bridge.lists(*tools)
    made = shown(await call)["task"]
    assert (made["status"], made["ttl"]) == ("working", 60_000)
    return str(made["taskId"])


@pytest.mark.parametrize("server", [LEGACY, OLDER])
def test_a_legacy_clients_call_runs_as_a_task_on_its_own_session(server: str) -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Message Flow"."""

    async def body() -> None:
        bridge = Bridge(server)
        task_id = await legacy_task(bridge, client=LEGACY)
        assert bridge.sent() == ("tools/call", {"name": "x"})
        assert bridge.running.request.session_id == "s1"
        waiting = bridge.send("tasks/result", client=LEGACY, taskId=task_id)
        await settle()
        await bridge.running.event(ELICIT)
        await settle()
        (question,) = bridge.events
        assert isinstance(question, Request)
        session = SessionState("key", "", LEGACY, "", b"{}", (UpstreamSession("b", REPLICA.address, "s1", server),))
        answer = Response(question.id, json.dumps(ACCEPT).encode(), b"")
        assert (await bridge.exchange(answer, session=session)).status == 202
        assert bridge.wire.told == [("s1", Response(ELICIT.id, answer.result, b""))]
        bridge.running.answer(b'{"content":[]}')
        meta = {"io.modelcontextprotocol/related-task": {"taskId": task_id}}
        assert shown(await waiting) == {"content": [], "_meta": meta}
        assert (await bridge.task(task_id, client=LEGACY))["status"] == "completed"

    on_loop(body)


def test_an_answer_to_a_task_in_another_cell_is_taken_there_and_somebody_elses_nowhere() -> None:
    async def body() -> None:
        bridge = Bridge(LEGACY)
        task_id = await legacy_task(bridge)
        await bridge.running.event(ELICIT)
        answer = Response(json.dumps(f"{task_id}/elicitation-1").encode(), b"{}", b"")
        session = SessionState("key", "", LEGACY, "", b"{}", (UpstreamSession("b", REPLICA.address, "s1", LEGACY),))
        assert (await bridge.exchange(answer, session=session, hash_keys={"user": "bob"})).status == 202
        assert bridge.wire.told == []
        cells = OtherCells(UpstreamAnswer(202, None))
        bridge.site.cell_name, bridge.site.elsewhere = "cell/1", cells
        bridge.site.others = lambda: frozenset({"cell/0"})
        await bridge.exchange(answer, session=session)
        assert cells.asked == [("cell/0", REPLICA)]
        plain = Response(b'"e1"', b"{}", b"")
        await bridge.exchange(plain, session=session)
        assert bridge.wire.told == [("s1", plain)]

    on_loop(body)


@pytest.mark.parametrize("support", ["required", "optional"])
def test_a_tool_that_can_be_a_task_of_its_server_is_one(support: str) -> None:
    async def body() -> None:
        bridge = Bridge(LEGACY)
        call = bridge.send(task={})
        await bridge.lists({"name": "x", "execution": {"taskSupport": support}})
        assert bridge.sent() == ("tools/call", {"name": "x", "task": {}})
        bridge.running.answer(b'{"task":{"taskId":"T1"}}')
        assert shown(await call) == {"task": {"taskId": "T1"}}
        assert len(bridge.site.tasks) == 0

    on_loop(body)


@pytest.mark.parametrize("fate", [Fate.SESSION_LOST, Fate.UNREACHABLE])
def test_a_call_that_its_server_has_not_run_is_no_task_but_tried_again_as_any_other(fate: Fate) -> None:
    async def body() -> None:
        bridge = Bridge(LEGACY)
        call = bridge.send(task={})
        await bridge.lists()
        bridge.running.fail(UpstreamError(fate, "gone"))
        assert (await refusal(call)).fate is fate
        assert len(bridge.site.tasks) == 0

    on_loop(body)


@pytest.mark.parametrize("client", [OLDER, "2024-11-05"])
def test_a_revision_without_tasks_gets_none(client: str) -> None:
    """Source: MCP 2025-11-25, "Task Support and Handling", 1."""

    async def body() -> None:
        bridge = Bridge(LEGACY)
        call = bridge.send(client=client, task={})
        await settle()
        assert bridge.sent()[1]["task"] == {}
        bridge.running.answer(b'{"content":[]}')
        assert shown(await call) == {"content": []}
        listing = bridge.send("tools/list", client=client)
        await settle()
        bridge.running.answer(b'{"tools":[{"name":"x"}]}')
        assert shown(await listing)["tools"] == [{"name": "x"}]

    on_loop(body)


def test_every_tool_may_be_a_task_and_an_unknown_task_is_nobodys() -> None:
    async def body() -> None:
        bridge = Bridge(LEGACY)
        for page, tools in (
            (b'{"tools":[{"name":"x"}]}', [{"name": "x", "execution": {"taskSupport": "optional"}}]),
            (b'{"tools":1}', 1),
        ):
            listing = bridge.send("tools/list")
            await settle()
            bridge.running.answer(page)
            assert shown(await listing)["tools"] == tools
        unknown = bridge.send("tasks/get", taskId="T1")
        await settle()
        bridge.running.result.set_result(UpstreamAnswer(200, Response(b"7", b"", b'{"code":-32601,"message":"m"}')))
        assert shown(await unknown)["code"] == -32602

    on_loop(body)


@pytest.mark.parametrize(
    ("capabilities", "revision", "tasks"),
    [
        ({"tools": {}}, LEGACY, {"cancel": {}, "requests": {"tools": {"call": {}}}}),
        ({"tools": {}, "tasks": {"list": {}, **TASKS}}, LEGACY, {"list": {}, **TASKS}),
        ({"tools": {}}, OLDER, None),
        ({}, LEGACY, None),
    ],
)
def test_tasks_are_announced_to_the_clients_that_may_have_them(capabilities: Any, revision: str, tasks: Any) -> None:
    async def body() -> None:
        bridge = Bridge(LEGACY)
        bridge.wire.capabilities = capabilities
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        opening = Request(b"1", "initialize", json.dumps(params).encode())
        assert shown(await bridge.exchange(opening))["capabilities"].get("tasks") == tasks
        if "tasks" not in capabilities and revision == LEGACY:  # and then its tools are not asked what they can be
            await asyncio.wait_for(bridge.send(task={}), 5)
            assert [each.request.message.method for each in bridge.wire.exchanges] == ["tools/call"]  # type: ignore[union-attr]

    on_loop(body)
