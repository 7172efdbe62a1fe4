"""Calls of modern clients that go on as tasks, at a legacy server with and without tasks of its own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.failure import Fate
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer
from mcp_gateway.transports.protocol.eras.tasks import KeptTask
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.upstream.bridge.task_ledger import TaskLimits
from tests.doubles.handshake_wire import CAPABILITIES
from tests.doubles.legacy_bridge import ACCEPT, ASKING, ELICIT, REPLICA, Bridge, refusal, shown
from tests.doubles.other_cells import OtherCells
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import settle

EXTENSION = "io.modelcontextprotocol/tasks"
KNOWS: dict[str, Any] = {**ASKING, "extensions": {EXTENSION: {}}}
DONE = b'{"content":[{"type":"text","text":"done"}]}'


class TaskBridge(Bridge):
    """A bridge whose client knows tasks. tools: the server's list of them."""

    tools = b'{"tools":[]}'

    def use(self, method: str = "tools/call", **how: Any) -> asyncio.Future[UpstreamAnswer]:
        return self.send(method, **{"capabilities": KNOWS, **how})

    async def created(self, **how: Any) -> str:
        """The id of a task that a call has become; the server has not answered."""
        made = shown(await self.use(**how))
        assert (made["resultType"], made["status"]) == ("task", "working")
        return str(made["taskId"])

    async def get(self, task_id: str, **how: Any) -> dict[str, Any]:
        return shown(await self.use("tasks/get", params={"taskId": task_id}, **how))

    async def update(self, task_id: str, answers: Any) -> dict[str, Any]:
        return shown(await self.use("tasks/update", params={"taskId": task_id, "inputResponses": answers}))


# ---- a server without tasks


def test_a_call_that_takes_its_time_becomes_a_task_and_a_quick_one_does_not() -> None:
    """Source: SEP-2663, "Capability Negotiation": at the server's own discretion and on a per-request basis."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        assert (await bridge.get(task_id))["status"] == "working"
        bridge.running.answer(DONE)
        await settle()
        over = await bridge.get(task_id)
        assert (over["resultType"], over["status"], over["result"]) == ("complete", "completed", json.loads(DONE))
        assert len(bridge.wire.exchanges) == 1, "the tool ran once"
        quick = bridge.use()
        await settle()
        bridge.running.answer(DONE)
        assert shown(await quick)["resultType"] == "complete"
        assert len(bridge.site.tasks) == 1

    on_loop(body)


def test_a_client_that_does_not_know_tasks_waits() -> None:
    """Source: SEP-2663: "MUST NOT return CreateTaskResult to a client that did not include the extension"."""

    async def body() -> None:
        bridge = TaskBridge()
        call = bridge.send()
        await asyncio.sleep(0.1)
        assert not call.done()
        bridge.running.answer(DONE)
        assert shown(await call)["resultType"] == "complete"
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            refused = await bridge.send(method, params={"taskId": "T1", "inputResponses": {}})
            assert (refused.status, shown(refused)["code"]) == (400, -32021)

    on_loop(body)


def test_one_that_listens_to_progress_is_kept_until_its_time_is_nearly_up() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        call = bridge.use(timeout_s=1.0, progressToken="p")
        await asyncio.sleep(0.1)
        assert not call.done()
        assert shown(await call)["resultType"] == "task"

    on_loop(body)


def test_a_task_asks_by_what_its_client_polls_and_goes_on_with_the_answers() -> None:
    """Source: SEP-2663, "Task Update Requests"; what is not asked, or answered already, is ignored."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        await bridge.running.event(ELICIT)
        await bridge.running.event(Request(b'"r1"', "roots/list", b""))
        asked = await bridge.get(task_id)
        assert (asked["status"], list(asked["inputRequests"])) == ("input_required", ["elicitation-1", "roots-2"])
        assert await bridge.update(task_id, {"elicitation-1": ACCEPT, "unknown": {}}) == {"resultType": "complete"}
        assert list((await bridge.get(task_id))["inputRequests"]) == ["roots-2"]
        await bridge.update(task_id, {"elicitation-1": ACCEPT, "roots-2": {"roots": []}})
        assert [message.id for _, message in bridge.wire.told if isinstance(message, Response)] == [b'"e1"', b'"r1"']
        assert (await bridge.get(task_id))["status"] == "working"
        assert (await bridge.update(task_id, [1]))["code"] == -32602
        assert (await bridge.update(task_id, {"a": 1}))["code"] == -32602

    on_loop(body)


def test_what_is_asked_before_there_is_a_task_is_asked_by_the_call_itself() -> None:
    """Source: SEP-2663, "Task Creation": round trips come first."""

    async def body() -> None:
        bridge = TaskBridge()
        asked = await bridge.parked(capabilities=KNOWS)
        retried = bridge.retry(asked, {"elicitation-1": ACCEPT}, capabilities=KNOWS)
        assert shown(await retried)["resultType"] == "task"
        assert len(bridge.site.parked) == 0

    on_loop(body)


def test_a_cancelled_task_stays_cancelled_and_its_server_is_told() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        assert shown(await bridge.use("tasks/cancel", params={"taskId": task_id})) == {"resultType": "complete"}
        assert (await bridge.get(task_id))["status"] == "cancelled"
        assert "notifications/cancelled" in bridge.wire.told_methods()
        assert shown(await bridge.use("tasks/cancel", params={"taskId": task_id})) == {"resultType": "complete"}

    on_loop(body)


@pytest.mark.parametrize(
    ("outcome", "status", "error"),
    [
        (b'{"content":[],"isError":true}', "completed", None),
        (Response(b"1", b"", b'{"code":-32603,"message":"broken"}'), "failed", {"code": -32603, "message": "broken"}),
    ],
)
def test_a_tool_that_fails_has_completed_and_an_error_of_the_protocol_has_failed(outcome: Any, status: str, error: Any) -> None:
    """Source: SEP-2663, "Task Execution Errors"."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        if isinstance(outcome, bytes):
            bridge.running.answer(outcome)
        else:
            bridge.running.result.set_result(UpstreamAnswer(200, outcome))
        await settle()
        task = await bridge.get(task_id)
        assert (task["status"], task.get("error")) == (status, error)
        assert task.get("statusMessage") == (None if error is None else "broken")

    on_loop(body)


def test_what_a_server_tells_meanwhile_holds_nothing_up() -> None:
    """Source: SEP-2663, "Task Status Notifications": progress and log messages are not supported on tasks."""

    async def body() -> None:
        bridge = TaskBridge()
        await bridge.created()
        for _ in range(200):
            await bridge.running.event(Notification("notifications/message", b'{"level":"info","data":1}'))
        assert bridge.events == []

    on_loop(body)


# ---- whose it is, and how long


def test_a_task_of_somebody_else_or_of_nobody_is_unknown() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created(user="ada")
        assert (await bridge.get(task_id, user="bob"))["code"] == -32602
        assert (await bridge.get("nobody's"))["code"] == -32602
        assert (await bridge.get(task_id, user="ada"))["status"] == "working"

    on_loop(body)


def test_a_task_whose_process_has_ended_says_that_it_was_lost() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        bridge.tasks.close()
        await settle()
        assert "notifications/cancelled" in bridge.wire.told_methods()
        bridge.bridge = bridge.started()
        lost = await bridge.get(task_id)
        assert (lost["status"], lost["taskId"]) == ("failed", task_id)
        assert "was lost with the process" in lost["statusMessage"]
        assert lost["error"]["code"] == -32603

    on_loop(body)


class Records:
    """What a disk would keep."""

    def __init__(self) -> None:
        self.tasks: dict[str, KeptTask] = {}

    def begin(self, name: str, holder: str, task: KeptTask) -> None:
        self.tasks[name] = task

    def finish(self, name: str, holder: str, task: KeptTask) -> None:
        if name in self.tasks:
            self.tasks[name] = task

    def find(self, name: str) -> KeptTask | None:
        return self.tasks.get(name)

    def forget(self, name: str) -> None:
        self.tasks.pop(name, None)


@pytest.mark.parametrize(
    ("outcome", "status", "member"),
    [
        (DONE, "completed", "result"),
        (Response(b"1", b"", b'{"code":-32603,"message":"broken"}'), "failed", "error"),
        (None, "cancelled", None),
    ],
)
def test_a_task_that_was_over_before_its_process_ended_is_answered_as_before(outcome: Any, status: str, member: Any) -> None:
    async def body() -> None:
        bridge = TaskBridge()
        bridge.site.records = Records()
        task_id = await bridge.created()
        if outcome is None:
            await bridge.use("tasks/cancel", params={"taskId": task_id})
        elif isinstance(outcome, bytes):
            bridge.running.answer(outcome)
        else:
            bridge.running.result.set_result(UpstreamAnswer(200, outcome))
        await settle()
        before = await bridge.get(task_id)
        bridge.tasks.close()
        bridge.bridge = bridge.started()
        after = await bridge.get(task_id)
        assert (after, after["status"]) == (before, status)
        assert member is None or member in after
        assert (await bridge.get(task_id, user="bob"))["code"] == -32602

    on_loop(body)


def test_a_task_whose_call_died_with_its_process_is_not_the_one_that_was_over() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        bridge.site.records = Records()
        task_id = await bridge.created()
        bridge.tasks.close()
        await settle()
        bridge.bridge = bridge.started()
        lost = await bridge.get(task_id)
        assert (lost["status"], lost["error"]["code"]) == ("failed", -32603)
        assert "was lost with the process" in lost["statusMessage"]

    on_loop(body)


def test_a_record_is_gone_with_the_time_to_live_of_its_task() -> None:
    async def body() -> None:
        bridge = TaskBridge(task_limits=TaskLimits(prompt_s=0.0, ttl_s=0.05))
        bridge.site.records = records = Records()
        made = shown(await bridge.use())
        assert len(records.tasks) == 1
        await asyncio.sleep(0.15)
        assert records.tasks == {}
        bridge.bridge = bridge.started()
        assert (await bridge.get(made["taskId"]))["code"] == -32602, "too old to have been lost"

    on_loop(body)


def test_a_task_that_runs_in_another_cell_is_asked_for_there() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        cells = OtherCells(UpstreamAnswer(200, Response(b'"mine"', b"{}", b"")))
        bridge.site.cell_name, bridge.site.elsewhere = "cell/1", cells
        bridge.site.others = lambda: frozenset({"cell/0"})
        bridge.bridge = bridge.started()
        assert await bridge.get(task_id) == {}
        assert cells.asked == [("cell/0", REPLICA)]
        bridge.site.others = frozenset
        assert (await bridge.get(task_id))["status"] == "failed"

    on_loop(body)


def test_a_task_past_its_time_to_live_is_ended_and_unknown() -> None:
    async def body() -> None:
        bridge = TaskBridge(task_limits=TaskLimits(prompt_s=0.0, ttl_s=0.05))
        made = shown(await bridge.use())
        assert made["ttlMs"] == 50
        await asyncio.sleep(0.15)
        assert (await bridge.get(made["taskId"]))["code"] == -32602
        assert "notifications/cancelled" in bridge.wire.told_methods()
        assert (len(bridge.site.tasks), bridge.site.hosted) == (0, {})

    on_loop(body)


def test_a_call_beyond_the_limits_is_ended_and_says_so() -> None:
    async def body() -> None:
        bridge = TaskBridge(task_limits=TaskLimits(prompt_s=0.02, per_client=1))
        await bridge.created()
        refused = await refusal(bridge.use())
        assert (refused.failure.reason, refused.fate) == ("pool_exhausted", Fate.ENDED)
        assert "1 tasks of this client are kept already; the call was ended" in refused.failure.text
        await bridge.created(ip="2.2.2.2")

    on_loop(body)


def test_results_leave_when_there_are_too_many_bytes_of_them() -> None:
    async def body() -> None:
        bridge = TaskBridge(task_limits=TaskLimits(prompt_s=0.02, result_bytes=len(DONE)))
        first = await bridge.created()
        bridge.running.answer(DONE)
        await settle()
        assert (await bridge.get(first))["status"] == "completed"
        second = await bridge.created()
        bridge.running.answer(DONE)
        await settle()
        assert (await bridge.get(first))["code"] == -32602
        assert (await bridge.get(second))["status"] == "completed"

    on_loop(body)


# ---- a server with tasks of its own


def with_tasks(support: str = "required") -> TaskBridge:
    bridge = TaskBridge()
    bridge.wire.capabilities = {**CAPABILITIES, "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}}}
    bridge.tools = json.dumps({"tools": [{"name": "x", "execution": {"taskSupport": support}}]}).encode()
    return bridge


async def listed(bridge: TaskBridge) -> None:
    """The bridge has asked which tools can be tasks, and knows it."""
    await settle()
    message = bridge.running.request.message
    assert isinstance(message, Request)
    assert message.method == "tools/list"
    bridge.running.answer(bridge.tools)
    await settle()


def sent(bridge: TaskBridge) -> tuple[str, dict[str, Any], str | None]:
    """(method, params, session) of the newest request at the server."""
    message = bridge.running.request.message
    assert isinstance(message, Request)
    return message.method, json.loads(message.params), bridge.running.request.session_id


@pytest.mark.parametrize("support", ["required", "optional"])
def test_a_tool_that_can_be_a_task_is_called_as_one_and_followed_on_the_same_session(support: str) -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Message Flow"."""

    async def body() -> None:
        bridge = with_tasks(support)
        call = bridge.use()
        await listed(bridge)
        method, params, session_id = sent(bridge)
        assert (method, params["task"]) == ("tools/call", {"ttl": 3_600_000})
        bridge.running.answer(b'{"task":{"taskId":"T1","status":"working"}}')
        task_id = shown(await call)["taskId"]
        assert sent(bridge) == ("tasks/result", {"taskId": "T1"}, session_id)
        await bridge.running.event(ELICIT)
        assert list((await bridge.get(task_id))["inputRequests"]) == ["elicitation-1"]
        await bridge.update(task_id, {"elicitation-1": ACCEPT})
        meta = {"io.modelcontextprotocol/related-task": {"taskId": "T1"}}
        bridge.running.answer(json.dumps({"content": [], "_meta": meta}).encode())
        await settle()
        assert (await bridge.get(task_id))["result"] == {"content": []}

    on_loop(body)


def test_a_task_of_the_server_is_cancelled_there() -> None:
    async def body() -> None:
        bridge = with_tasks()
        call = bridge.use()
        await listed(bridge)
        bridge.running.answer(b'{"task":{"taskId":"T1","status":"working"}}')
        task_id = shown(await call)["taskId"]
        await bridge.use("tasks/cancel", params={"taskId": task_id})
        await settle()
        assert sent(bridge)[:2] == ("tasks/cancel", {"taskId": "T1"})
        assert (await bridge.get(task_id))["status"] == "cancelled"

    on_loop(body)


def test_a_tool_that_is_nothing_but_a_task_is_refused_to_who_does_not_know_any() -> None:
    """Source: SEP-2663, "Capability Negotiation"."""

    async def body() -> None:
        bridge = with_tasks()
        call = bridge.send()
        await listed(bridge)
        refused = await call
        assert (refused.status, shown(refused)["code"]) == (400, -32021)
        assert shown(refused)["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        assert bridge.wire.open == []

    on_loop(body)


@pytest.mark.parametrize("capabilities", [ASKING, KNOWS])
def test_a_tool_that_cannot_be_a_task_is_called_as_it_is_whatever_the_client_wishes(capabilities: Any) -> None:
    """Source: SEP-2663: servers decide; the member `task` of the other era has no meaning."""

    async def body() -> None:
        bridge = with_tasks("forbidden")
        call = bridge.send(params={"task": {"ttl": 1}}, capabilities=capabilities)
        await listed(bridge)
        method, params, _ = sent(bridge)
        assert (method, "task" in params) == ("tools/call", False)
        bridge.running.answer(DONE)
        assert shown(await call)["resultType"] == "complete"

    on_loop(body)
