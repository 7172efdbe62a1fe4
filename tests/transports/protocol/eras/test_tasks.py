"""Tasks as both eras tell of them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgspec
import pytest

from mcp_gateway.transports.protocol.eras.tasks import (
    TaskStatus,
    TaskView,
    created_task,
    is_error_result,
    legacy_outcome,
    legacy_task,
    task_support,
    unknown_task,
    with_declared_tasks,
    with_extension,
    with_legacy_tasks,
    with_optional_tasks,
)
from mcp_gateway.transports.protocol.mcp.revisions import LEGACY_REVISIONS

EXTENSION = "io.modelcontextprotocol/tasks"
VIEW = TaskView(task_id="T1", status=TaskStatus.WORKING, created_s=0.0, updated_s=1.5, ttl_ms=60_000, poll_ms=500)
MODERN = {
    "taskId": "T1",
    "status": "working",
    "createdAt": "1970-01-01T00:00:00.000Z",
    "lastUpdatedAt": "1970-01-01T00:00:01.500Z",
    "ttlMs": 60_000,
    "pollIntervalMs": 500,
}
LEGACY = {
    **{name: MODERN[name] for name in ("taskId", "status", "createdAt", "lastUpdatedAt")},
    "ttl": 60_000,
    "pollInterval": 500,
}
DONE, FAILED_TOOL = b'{"content":[]}', b'{"content":[],"isError":true}'
ERROR = b'{"code":-32603,"message":"broken"}'


def ended(status: TaskStatus, **how: Any) -> TaskView:
    return attrs.evolve(VIEW, status=status, **how)


def test_a_task_is_told_in_the_words_of_each_era() -> None:
    assert VIEW.modern() == VIEW.modern_detailed() == MODERN
    assert VIEW.legacy() == LEGACY
    assert json.loads(VIEW.modern_created()) == {"resultType": "task", **MODERN}
    assert json.loads(VIEW.legacy_created()) == {"task": LEGACY}


@pytest.mark.parametrize(
    ("view", "modern", "legacy"),
    [
        (ended(TaskStatus.COMPLETED, result=DONE), {"status": "completed", "result": {"content": []}}, "completed"),
        (
            ended(TaskStatus.COMPLETED, result=FAILED_TOOL),
            {"status": "completed", "result": {"content": [], "isError": True}},
            "failed",
        ),
        (ended(TaskStatus.FAILED, error=ERROR), {"status": "failed", "error": {"code": -32603, "message": "broken"}}, "failed"),
        (ended(TaskStatus.CANCELLED), {"status": "cancelled"}, "cancelled"),
        (
            ended(TaskStatus.INPUT_REQUIRED, asked={"q1": {"method": "roots/list"}}),
            {"status": "input_required", "inputRequests": {"q1": {"method": "roots/list"}}},
            "input_required",
        ),
    ],
)
def test_each_status_brings_its_own_member_and_a_failed_tool_is_a_failed_task_in_the_legacy_era(
    view: TaskView, modern: Any, legacy: str
) -> None:
    """Source: SEP-2663, "Task Execution Errors"; MCP 2025-11-25, the same section."""
    detailed = json.loads(msgspec.json.encode(view.modern_detailed()))
    assert detailed == {**MODERN, **modern}
    assert view.legacy() == {**LEGACY, "status": legacy} == legacy_task(detailed)


def test_a_message_goes_along_and_an_unlimited_task_says_so() -> None:
    assert attrs.evolve(VIEW, message="half done").legacy()["statusMessage"] == "half done"
    assert (
        legacy_task({"taskId": "T1", "status": "working", "createdAt": "a", "lastUpdatedAt": "b", "ttlMs": None})["ttl"] is None
    )


@pytest.mark.parametrize(
    ("task", "result", "error"),
    [
        (
            {"taskId": "T1", "status": "completed", "result": {"content": [], "_meta": {"x": 1}}},
            {"content": [], "_meta": {"x": 1, "io.modelcontextprotocol/related-task": {"taskId": "T1"}}},
            None,
        ),
        ({"taskId": "T1", "status": "failed", "error": {"code": -1, "message": "no"}}, None, {"code": -1, "message": "no"}),
        ({"taskId": "T1", "status": "cancelled"}, None, {"code": -32603, "message": "the task was cancelled"}),
        ({"taskId": "T1", "status": "failed"}, None, {"code": -32603, "message": "the task was failed"}),
    ],
)
def test_the_result_of_a_task_is_what_the_call_would_have_said(task: Any, result: Any, error: Any) -> None:
    """Source: MCP 2025-11-25, "Result Retrieval" and "Related Task Metadata"."""
    response = legacy_outcome(task, b"7")
    assert response.id == b"7"
    assert (json.loads(response.result) if response.result else None) == result
    assert (json.loads(response.error) if response.error else None) == error


def test_the_view_of_a_task_has_the_same_outcome() -> None:
    assert json.loads(ended(TaskStatus.COMPLETED, result=DONE).legacy_outcome(b"1").result)["content"] == []
    assert ended(TaskStatus.FAILED, error=ERROR).legacy_outcome(b"1").error == ERROR


@pytest.mark.parametrize(
    ("result", "is_error"),
    [
        (FAILED_TOOL, True),
        (DONE, False),
        (b'{"isError":false}', False),
        (b'{"content":["isError", true]}', False),
        (b"{}", False),
    ],
)
def test_a_tool_says_itself_that_it_failed(result: bytes, is_error: bool) -> None:
    assert is_error_result(result) == is_error


def test_an_unknown_task_is_a_wrong_parameter_and_its_id_is_not_repeated_in_full() -> None:
    error = json.loads(unknown_task("x" * 1_000))
    assert error["code"] == -32602
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("capabilities", "extensions"),
    [
        ({"tools": {}}, {EXTENSION: {}}),
        ({"tools": {}, "extensions": {"other": {}}}, {EXTENSION: {}, "other": {}}),
        ({"tools": {}, "extensions": {EXTENSION: {"own": 1}}}, {EXTENSION: {"own": 1}}),
        ({"prompts": {}}, None),
    ],
)
def test_modern_clients_are_offered_tasks_wherever_there_are_tools(capabilities: Any, extensions: Any) -> None:
    assert with_extension(capabilities).get("extensions") == extensions


def test_legacy_clients_of_the_one_revision_that_has_them_are_offered_tasks() -> None:
    own = {"tools": {}, "tasks": {"list": {}, "requests": {"tools": {"call": {}}}}}
    assert with_legacy_tasks(own, "2025-11-25") == own
    offered = {revision: with_legacy_tasks({"tools": {}}, revision).get("tasks") for revision in LEGACY_REVISIONS}
    assert offered.pop("2025-11-25") == {"cancel": {}, "requests": {"tools": {"call": {}}}}
    assert set(offered.values()) == {None}
    assert with_legacy_tasks({"resources": {}}, "2025-11-25") == {"resources": {}}


def test_tools_say_that_they_may_be_tasks_and_keep_what_they_said_else() -> None:
    page = {"tools": [{"name": "a"}, {"name": "b", "execution": {"taskSupport": "forbidden", "x": 1}}], "nextCursor": "2"}
    shown = json.loads(with_optional_tasks(json.dumps(page).encode()))
    assert [tool["execution"] for tool in shown["tools"]] == [{"taskSupport": "optional"}, {"x": 1, "taskSupport": "optional"}]
    assert (shown["nextCursor"], shown["tools"][1]["name"]) == ("2", "b")
    with pytest.raises(msgspec.DecodeError):
        with_optional_tasks(b'{"tools":1}')


def test_a_tool_that_must_be_a_task_stays_one() -> None:
    page = {"tools": [{"name": each, "execution": {"taskSupport": each}} for each in ("required", "optional", "forbidden")]}
    shown = json.loads(with_optional_tasks(json.dumps(page).encode()))["tools"]
    assert [tool["execution"]["taskSupport"] for tool in shown] == ["required", "optional", "optional"]


def test_what_a_tool_says_of_tasks_is_known_by_its_name() -> None:
    """Source: MCP 2025-11-25, "Tool-Level Negotiation": what says nothing forbids them."""
    supports = [None, "required", "optional", "forbidden", "later"]
    tools = [{"name": str(at), **({"execution": {"taskSupport": each}} if each else {})} for at, each in enumerate(supports)]
    found = task_support(json.dumps({"tools": tools}).encode())
    assert list(found.values()) == ["forbidden", "required", "optional", "forbidden", "forbidden"]


def test_a_client_is_made_one_that_takes_tasks_for_answers() -> None:
    assert with_declared_tasks({"roots": {}}) == {"roots": {}, "extensions": {EXTENSION: {}}}
    assert with_declared_tasks({"extensions": {"other": {}}})["extensions"] == {"other": {}, EXTENSION: {}}


@pytest.mark.parametrize(
    ("result", "task_id"),
    [
        (b'{"task":{"taskId":"T1"}}', "T1"),
        (b'{"task":{"taskId":1}}', None),
        (b'{"task":1}', None),
        (b'{"content":[],"structuredContent":{"task":{"taskId":"T1"}}}', None),
    ],
)
def test_a_legacy_server_has_made_a_task_where_it_names_one(result: bytes, task_id: str | None) -> None:
    assert created_task(result) == task_id


def test_the_result_inside_a_task_does_not_name_it_again() -> None:
    """Source: SEP-2663, "Task Polling"."""
    related = {"io.modelcontextprotocol/related-task": {"taskId": "T1"}}
    for meta, left in (({**related, "x": 1}, {"content": [], "_meta": {"x": 1}}), (related, {"content": []})):
        view = ended(TaskStatus.COMPLETED, result=json.dumps({"content": [], "_meta": meta}).encode())
        assert json.loads(msgspec.json.encode(view.modern_detailed()))["result"] == left
