"""What a process gives its clients to come back with leads to its node, and is to the process what it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.actors.forwarding.node_tokens import MOST_SEALED_BYTES, NodeTokens
from mcp_gateway.transports.protocol.mcp.jsonrpc import Notification, Request, Response
from mcp_gateway.transports.protocol.sealed.call_state import CallState, sealed_state
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, sealed_task_id

SEAL = Seal(b"the secret of these tests")
TOKENS = NodeTokens(SEAL, "files")
ASKING = {"resultType": "input_required", "inputRequests": {"name": {"method": "elicitation/create"}}}
OWN_STATE = sealed_state(SEAL, CallState("a/cell/0", "i", "files", "r", "", "call", 1, 9.0, b"digest"))
OWN_TASK = sealed_task_id(SEAL, TaskId("files", "r", "", "task", "a/cell/0", "i"))


def request(method: str = "tools/call", **params: Any) -> Request:
    return Request(b"7", method, json.dumps(params, separators=(",", ":")).encode())


def given_by(node: str, asked: Request, **result: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TOKENS.given(node, asked, Response(b"7", json.dumps(result).encode(), b"")).result)
    return found


@given(st.text(max_size=200), st.sampled_from(["tools/call", "prompts/get", "resources/read"]))
def test_a_state_comes_back_to_its_node_as_the_process_has_given_it(state: str, method: str) -> None:
    shown = given_by("b", request(method), **ASKING, requestState=state)
    assert {**shown, "requestState": state} == {**ASKING, "requestState": state}
    node, inner = TOKENS.read(request(method, name="x", requestState=shown["requestState"]))
    assert (node, json.loads(inner.params)) == ("b", {"name": "x", "requestState": state})


def test_a_task_has_one_id_which_leads_to_its_node() -> None:
    created = given_by("b", request(), resultType="task", taskId="t1", status="working")
    assert (
        given_by("b", request("tasks/get", taskId="t1"), taskId="t1", status="completed")["taskId"] == created["taskId"] != "t1"
    )
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        node, inner = TOKENS.read(request(method, taskId=created["taskId"]))
        assert (node, json.loads(inner.params)) == ("b", {"taskId": "t1"})
    node, inner = TOKENS.read(request("subscriptions/listen", notifications={"taskIds": [created["taskId"]]}))
    assert (node, json.loads(inner.params)) == ("b", {"notifications": {"taskIds": ["t1"]}})
    told = TOKENS.told("b", Notification("notifications/tasks", b'{"taskId":"t1","status":"working"}'))
    assert isinstance(told, Notification)
    assert json.loads(told.params)["taskId"] == created["taskId"]


def test_what_the_gateway_has_sealed_itself_stays_as_it_is() -> None:
    assert given_by("b", request(), **ASKING, requestState=OWN_STATE)["requestState"] == OWN_STATE
    assert given_by("b", request(), resultType="task", taskId=OWN_TASK)["taskId"] == OWN_TASK
    for asked in (request(name="x", requestState=OWN_STATE), request("tasks/get", taskId=OWN_TASK)):
        assert TOKENS.read(asked) == ("", asked)


@pytest.mark.parametrize(("letter", "letter_bytes"), [("s", 1), ("\U0001f511", 4)])
@pytest.mark.parametrize(("more", "is_sealed"), [(0, True), (1, False)])
def test_a_state_is_sealed_up_to_a_length_and_can_be_opened_again(
    letter: str, letter_bytes: int, more: int, *, is_sealed: bool
) -> None:
    state = letter * (MOST_SEALED_BYTES // letter_bytes + more)
    shown = given_by("b", request(), **ASKING, requestState=state)["requestState"]
    node, inner = TOKENS.read(request(requestState=shown))
    assert (node, json.loads(inner.params)["requestState"]) == ("b" if is_sealed else "", state)


def test_who_brings_back_what_another_key_has_sealed_is_asked_here_and_it_is_as_it_came() -> None:
    theirs = NodeTokens(Seal(b"the secret of somebody else"), "files")
    result = theirs.given("b", request(), Response(b"7", json.dumps({**ASKING, "requestState": "s"}).encode(), b"")).result
    asked = request(requestState=json.loads(result)["requestState"])
    assert TOKENS.read(asked) == ("", asked)


@given(st.binary(max_size=60), st.sampled_from(["tools/call", "tasks/get", "subscriptions/listen", "tools/list"]))
def test_what_cannot_be_read_passes_as_it_is(noise: bytes, method: str) -> None:
    for content in (noise, b'{"requestState":' + noise, b'{"taskId":1,"requestState":[]}'):
        asked = Request(b"7", method, content)
        assert TOKENS.read(asked) == ("", asked)
        assert TOKENS.given("b", asked, Response(b"7", content, b"")).result == content
