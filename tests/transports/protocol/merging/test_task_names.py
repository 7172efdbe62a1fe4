"""Ids of tasks in messages: each that is the server's is renamed, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.mcp.jsonrpc import Message, Notification, Request, Response
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.merging.task_names import (
    inner_task_message,
    named_tasks,
    outer_task_message,
    outer_task_result,
)
from tests.transports.protocol.eras.test_translation import dumped, objects

FILES = Naming("files", "files__")
RELATED = "io.modelcontextprotocol/related-task"
MINE, OUTER = {RELATED: {"taskId": "T1"}, "other": 1}, {RELATED: {"taskId": "files:T1"}, "other": 1}
LINK = {"type": "resource_link", "uri": "file:///a", "name": "a"}
OUTER_LINK = {**LINK, "uri": "files+file:///a"}


def outer(inner: str) -> str:
    return f"files:{inner}"


def inner(shown: str) -> str:
    return shown.removeprefix("files:")


def result_of(method: str, result: Any) -> Any:
    return json.loads(outer_task_result(method, json.dumps(result).encode(), FILES, outer))


@pytest.mark.parametrize(
    ("method", "result", "renamed"),
    [
        ("tools/call", {"resultType": "task", "taskId": "T1"}, {"resultType": "task", "taskId": "files:T1"}),
        ("tools/call", {"task": {"taskId": "T1", "ttl": 1}}, {"task": {"taskId": "files:T1", "ttl": 1}}),
        ("tools/call", {"content": [], "_meta": MINE}, {"content": [], "_meta": OUTER}),
        ("tools/call", {"resultType": "complete", "taskId": "T1"}, {"resultType": "complete", "taskId": "T1"}),
        ("tasks/get", {"taskId": "T1", "status": "working"}, {"taskId": "files:T1", "status": "working"}),
        (
            "tasks/get",
            {"taskId": "T1", "result": {"content": [LINK]}},
            {"taskId": "files:T1", "result": {"content": [OUTER_LINK]}},
        ),
        ("tasks/cancel", {"taskId": "T1"}, {"taskId": "files:T1"}),
        ("tasks/result", {"content": [], "_meta": MINE}, {"content": [], "_meta": OUTER}),
        (
            "tasks/list",
            {"tasks": [{"taskId": "T1"}, {"taskId": "T2"}]},
            {"tasks": [{"taskId": "files:T1"}, {"taskId": "files:T2"}]},
        ),
        ("tools/call", {"structuredContent": {"taskId": "T1"}}, {"structuredContent": {"taskId": "T1"}}),
    ],
)
def test_results_name_tasks_as_clients_know_them(method: str, result: Any, renamed: Any) -> None:
    assert result_of(method, result) == renamed


@pytest.mark.parametrize(
    "result", [{"taskId": 1}, {"taskId": None}, {"task": 1, "x": "taskId"}, {"_meta": "taskId", "taskId": {}}]
)
def test_what_is_no_task_passes_as_it_is(result: Any) -> None:
    assert result_of("tasks/get", result) == result


def test_a_result_without_a_task_keeps_its_bytes() -> None:
    result = b'{ "content" : [] }'
    assert outer_task_result("tools/call", result, FILES, outer) is result


@given(objects)
def test_any_result_passes(result: Any) -> None:
    for method in ("tools/call", "tasks/get", "tasks/list"):
        outer_task_result(method, dumped({**result, "taskId": "T1"}), FILES, outer)
    outer_task_message(Notification("notifications/tasks", dumped({"taskId": "T1", **result})), FILES, outer)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (Notification("notifications/tasks/status", b'{"taskId":"T1"}'), {"taskId": "files:T1"}),
        (Notification("notifications/tasks", b'{"taskId":"T1","status":"working"}'), {"taskId": "files:T1", "status": "working"}),
        (
            Notification("notifications/tasks", json.dumps({"taskId": "T1", "result": {"content": [LINK]}}).encode()),
            {"taskId": "files:T1", "result": {"content": [OUTER_LINK]}},
        ),
        (
            Notification("notifications/progress", json.dumps({"taskId": "T1", "_meta": MINE}).encode()),
            {"taskId": "T1", "_meta": OUTER},
        ),
        (Request(b"1", "elicitation/create", json.dumps({"_meta": MINE}).encode()), {"_meta": OUTER}),
        (Request(b"1", "tasks/get", b'{"taskId":"T1"}'), {"taskId": "T1"}),  # the client's own task
        (Request(b"1", "elicitation/create", b'{"message":"taskId"}'), {"message": "taskId"}),
    ],
)
def test_what_servers_say_on_their_own_names_their_tasks_and_not_those_of_clients(said: Message, shown: Any) -> None:
    """Source: MCP 2025-11-25, "Definitions": either side may run tasks for the other."""
    message = outer_task_message(said, FILES, outer)
    assert isinstance(message, Notification | Request)
    assert json.loads(message.params) == shown


@pytest.mark.parametrize(
    ("said", "params"),
    [
        (Request(b"1", "tasks/get", b'{"taskId":"files:T1"}'), {"taskId": "T1"}),
        (Request(b"1", "tasks/update", b'{"taskId":"files:T1","inputResponses":{}}'), {"taskId": "T1", "inputResponses": {}}),
        (
            Request(b"1", "tools/call", b'{"name":"a","arguments":{"taskId":"files:T1"}}'),
            {"name": "a", "arguments": {"taskId": "files:T1"}},
        ),
        (Notification("notifications/progress", json.dumps({"_meta": OUTER}).encode()), {"_meta": MINE}),
    ],
)
def test_what_clients_say_names_tasks_as_the_server_knows_them(said: Message, params: Any) -> None:
    message = inner_task_message(said, inner)
    assert isinstance(message, Notification | Request)
    assert json.loads(message.params) == params


def test_a_clients_answer_names_the_task_that_it_belongs_to() -> None:
    """Source: MCP 2025-11-25, "Related Task Metadata"."""
    answer = inner_task_message(Response(b"1", json.dumps({"action": "accept", "_meta": OUTER}).encode(), b""), inner)
    assert isinstance(answer, Response)
    assert json.loads(answer.result) == {"action": "accept", "_meta": MINE}
    refused = Response(b"1", b"", b'{"code":1,"message":"no"}')
    assert inner_task_message(refused, inner) is refused


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("subscriptions/listen", b'{"notifications":{"taskIds":["a","b"],"toolsListChanged":true}}', ["a", "b"]),
        ("subscriptions/listen", b'{"notifications":{}}', []),
        ("subscriptions/listen", b'{"notifications":{"taskIds":[1]}}', []),
        ("tasks/get", b'{"taskId":"a"}', ["a"]),
        ("tasks/get", b'{"taskId":1}', []),
        ("tasks/cancel", b"", []),
    ],
)
def test_a_request_names_the_tasks_that_it_is_about(method: str, params: bytes, named: list[str]) -> None:
    assert named_tasks(method, params) == named


def test_a_subscription_and_its_acknowledgment_name_tasks_as_their_reader_knows_them() -> None:
    """Source: SEP-2663, "Task Status Notifications"."""
    wanted = Request(b"1", "subscriptions/listen", b'{"notifications":{"taskIds":["files:T1"],"toolsListChanged":true}}')
    asked = inner_task_message(wanted, inner)
    assert isinstance(asked, Request)
    assert json.loads(asked.params) == {"notifications": {"taskIds": ["T1"], "toolsListChanged": True}}
    honoured = Notification("notifications/subscriptions/acknowledged", b'{"notifications":{"taskIds":["T1"]}}')
    told = outer_task_message(honoured, FILES, outer)
    assert isinstance(told, Notification)
    assert json.loads(told.params) == {"notifications": {"taskIds": ["files:T1"]}}
