"""Calls of legacy clients that run as tasks at a modern server, with tasks of its own and without."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.ports.upstream_port import UpstreamAnswer, UpstreamRequest
from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Request, Response
from mcp_gateway.transports.protocol.mcp.revisions import NEWEST
from mcp_gateway.transports.protocol.sealed.session import BRIDGED_SESSION
from tests.doubles.legacy_bridge import shown
from tests.doubles.modern_bridge import Bridge
from tests.doubles.patience import on_loop
from tests.doubles.scripted_wire import settle

ELICIT = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}}
ACCEPT = {"action": "accept", "content": {}}
TASK = {"taskId": "T1", "status": "working", "createdAt": "a", "lastUpdatedAt": "b", "ttlMs": None, "pollIntervalMs": 1}
DONE = {"resultType": "complete", "content": []}


class TaskBridge(Bridge):
    """One legacy client that calls tools as tasks."""

    async def created(self, **task: Any) -> str:
        made = shown(await self.send(task=task))["task"]
        assert made["status"] == "working"
        await settle()
        return str(made["taskId"])

    def about(self, method: str, task_id: str) -> asyncio.Future[UpstreamAnswer]:
        request = UpstreamRequest(
            kind=RequestKind.REQUEST,
            message=Request(b"9", method, json.dumps({"taskId": task_id}).encode()),
            revision=NEWEST,
            session_id=BRIDGED_SESSION + "cell/0",
            session=self.state(),
        )
        task = self.tasks.addressed(request)
        assert task is not None

        async def on_event(event: Message | None, event_id: str | None) -> None:
            self.events.append(event)

        return asyncio.ensure_future(self.tasks.exchange(request, task, on_event))

    async def status(self, task_id: str) -> str:
        return str(shown(await self.about("tasks/get", task_id))["status"])

    async def asked_next(self, method: str) -> dict[str, Any]:
        """The params of the server's next request, which is of this method."""
        async with asyncio.timeout(5):
            while not self.wire.open or getattr(self.running.request.message, "method", "") != method:
                await asyncio.sleep(0.01)
        return self.asked()


def test_a_call_runs_as_a_task_and_its_result_says_whose_it_is() -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Message Flow"."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created(ttl=60_000)
        assert "task" not in bridge.asked()
        waiting = bridge.about("tasks/result", task_id)
        await settle()
        assert not waiting.done()
        bridge.answer(DONE)
        meta = {"io.modelcontextprotocol/related-task": {"taskId": task_id}}
        assert shown(await waiting) == {"content": [], "_meta": meta}
        over = shown(await bridge.about("tasks/get", task_id))
        assert (over["status"], over["ttl"], "result" in over) == ("completed", 60_000, False)

    on_loop(body)


def test_what_the_server_asks_waits_for_who_comes_for_the_result() -> None:
    """Source: MCP 2025-11-25, "Input Required Status": all questions, each with the task that it belongs to."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        bridge.answer({"resultType": "input_required", "inputRequests": {"a": ELICIT, "b": {"method": "roots/list"}}})
        await settle()
        assert await bridge.status(task_id) == "input_required"
        waiting = bridge.about("tasks/result", task_id)
        await settle()
        questions = [event for event in bridge.events if isinstance(event, Request)]
        assert {question.method for question in questions} == {"elicitation/create", "roots/list"}
        for question in questions:
            related = json.loads(question.params)["_meta"]["io.modelcontextprotocol/related-task"]
            assert related == {"taskId": task_id}
            answer = ACCEPT if question.method == "elicitation/create" else {"roots": []}
            await bridge.say(Response(question.id, json.dumps(answer).encode(), b""), kind=RequestKind.MESSAGE)
        await settle()
        assert bridge.asked()["inputResponses"] == {"a": ACCEPT, "b": {"roots": []}}
        bridge.answer(DONE)
        assert shown(await waiting)["content"] == []

    on_loop(body)


def test_a_task_of_the_server_is_polled_answered_and_over() -> None:
    """Source: SEP-2663, "Task Polling"; a question is put once, however often it is read."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        assert (
            "io.modelcontextprotocol/tasks" in bridge.asked()["_meta"]["io.modelcontextprotocol/clientCapabilities"]["extensions"]
        )
        bridge.answer({"resultType": "task", **TASK})
        waiting = bridge.about("tasks/result", task_id)
        for _ in range(2):
            assert (await bridge.asked_next("tasks/get"))["taskId"] == "T1"
            bridge.answer({**TASK, "status": "input_required", "inputRequests": {"q": ELICIT}})
            await settle()
        (question,) = [event for event in bridge.events if isinstance(event, Request)]
        await bridge.say(Response(question.id, json.dumps(ACCEPT).encode(), b""), kind=RequestKind.MESSAGE)
        await settle()
        updated = next(each for each in bridge.wire.open if getattr(each.request.message, "method", "") == "tasks/update")
        assert bridge.asked(updated)["inputResponses"] == {"q": ACCEPT}
        updated.answer(b'{"resultType":"complete"}')
        await bridge.asked_next("tasks/get")
        bridge.answer({**TASK, "status": "completed", "result": {"content": []}})
        assert shown(await waiting)["content"] == []

    on_loop(body)


@pytest.mark.parametrize(
    ("ended", "status", "said"),
    [
        ({"status": "failed", "error": {"code": -32603, "message": "no"}}, "failed", {"code": -32603, "message": "no"}),
        ({"status": "cancelled"}, "failed", {"code": -32603, "message": "the task was cancelled"}),
    ],
)
def test_a_task_that_the_server_has_ended_in_another_way_says_so(ended: Any, status: str, said: Any) -> None:
    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        bridge.answer({"resultType": "task", **TASK})
        await bridge.asked_next("tasks/get")
        bridge.answer({**TASK, **ended})
        assert shown(await bridge.about("tasks/result", task_id)) == said
        assert await bridge.status(task_id) == status

    on_loop(body)


def test_a_task_is_cancelled_once_and_its_server_told() -> None:
    """Source: MCP 2025-11-25, "Task Cancellation"."""

    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        bridge.answer({"resultType": "task", **TASK})
        await bridge.asked_next("tasks/get")
        assert shown(await bridge.about("tasks/cancel", task_id))["status"] == "cancelled"
        assert (await bridge.asked_next("tasks/cancel"))["taskId"] == "T1"
        bridge.answer({"resultType": "complete"})
        assert shown(await bridge.about("tasks/cancel", task_id))["code"] == -32602

    on_loop(body)


def test_an_answer_that_the_server_refuses_ends_the_task() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        task_id = await bridge.created()
        bridge.answer({"resultType": "task", **TASK})
        waiting = bridge.about("tasks/result", task_id)
        await bridge.asked_next("tasks/get")
        bridge.answer({**TASK, "status": "input_required", "inputRequests": {"q": ELICIT}})
        await settle()
        (question,) = [event for event in bridge.events if isinstance(event, Request)]
        await bridge.say(Response(question.id, json.dumps(ACCEPT).encode(), b""), kind=RequestKind.MESSAGE)
        await bridge.asked_next("tasks/update")
        bridge.fail(-32602)
        await bridge.asked_next("tasks/get")
        bridge.answer(TASK)
        assert shown(await waiting)["code"] == -32602

    on_loop(body)


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18"])
def test_a_revision_without_tasks_ignores_the_wish(revision: str) -> None:
    """Source: MCP 2025-11-25, "Task Support and Handling", 1."""

    async def body() -> None:
        bridge = TaskBridge(revision=revision)
        call = bridge.send(task={})
        await settle()
        bridge.answer(DONE)
        assert shown(await call)["content"] == []
        assert len(bridge.site.tasks) == 0

    on_loop(body)


def test_an_id_of_nobody_is_a_wrong_parameter() -> None:
    async def body() -> None:
        bridge = TaskBridge()
        unknown = await bridge.say(Request(b"1", "tasks/get", b'{"taskId":"T1"}'))
        assert shown(unknown)["code"] == -32602

    on_loop(body)
