"""Ids of one replica's tasks, sealed on the way out and opened on the way in."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.pool.task_naming import TaskNaming
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, sealed_task_id

SEAL = Seal(b"0123456789abcdef")
TASKS = TaskNaming(SEAL, Naming("files", "files__"), "http://a")
HOSTED = sealed_task_id(SEAL, TaskId("files", "http://a", "ada", "name", "cell/0", "i"))


def outer(inner: str, tasks: TaskNaming = TASKS, principal: str = "ada") -> str:
    answer = Response(b"1", json.dumps({"taskId": inner}).encode(), b"")
    shown = tasks.outer_answer(Request(b"1", "tasks/get", b""), answer, principal)
    return str(json.loads(shown.result)["taskId"])


def inner(shown: str) -> str:
    asked = TASKS.inner(Request(b"1", "tasks/get", json.dumps({"taskId": shown}).encode()))
    assert isinstance(asked, Request)
    return str(json.loads(asked.params)["taskId"])


@given(st.text(max_size=40))
def test_what_goes_out_comes_back_as_it_was(task_id: str) -> None:
    assert outer(task_id) != task_id
    assert inner(outer(task_id)) == task_id


def test_each_server_replica_and_person_has_ids_of_its_own() -> None:
    elsewhere = TaskNaming(SEAL, Naming("files", "files__"), "http://b")
    others = TaskNaming(SEAL, Naming("mail", "mail__"), "http://a")
    assert len({outer("T1"), outer("T1", elsewhere), outer("T1", others), outer("T1", principal="bob")}) == 4


def test_a_task_that_the_gateway_runs_itself_keeps_its_id() -> None:
    assert outer(HOSTED) == inner(HOSTED) == HOSTED


def test_an_error_and_an_event_without_a_task_pass_as_they_are() -> None:
    error = Response(b"1", b"", b'{"code":1,"message":"no"}')
    assert TASKS.outer_answer(Request(b"1", "tasks/get", b""), error, "") is error
    changed = Notification("notifications/tools/list_changed", b"")
    assert TASKS.outer(changed, "") is changed
