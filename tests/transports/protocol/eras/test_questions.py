"""What servers ask, in the form of either era."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given

from mcp_gateway.transports.protocol.eras.questions import (
    can_be_asked,
    capability_problem,
    input_request,
    input_required,
    input_response,
    missing_capability,
    read_input_requests,
    read_input_required,
    refused_question,
    retried_params,
    url_elicitations,
)
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request, Response, members
from mcp_gateway.transports.protocol.mcp.revisions import META_SERVER_INFO
from tests.transports.protocol.eras.test_translation import dumped, objects


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "required"),
    [
        ("elicitation/create", {}, {}, {"elicitation": {"form": {}}}),
        ("elicitation/create", {}, {"elicitation": {}}, {}),
        ("elicitation/create", {"mode": "form"}, {"elicitation": {"form": {}}}, {}),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}, {}),
        ("elicitation/create", {}, {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
        ("sampling/createMessage", {}, {}, {"sampling": {}}),
        ("sampling/createMessage", {}, {"sampling": {}}, {}),
        ("sampling/createMessage", {"tools": [{}]}, {"sampling": {}}, {"sampling": {"tools": {}}}),
        ("sampling/createMessage", {"tools": [{}]}, {"sampling": {"tools": {}}}, {}),
        ("roots/list", {}, {"sampling": {}}, {"roots": {}}),
        ("roots/list", {}, {"roots": {}}, {}),
    ],
)
def test_a_client_is_only_asked_what_it_has_declared(
    method: str, params: dict[str, Any], capabilities: dict[str, Any], required: dict[str, Any]
) -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr, "Server Requirements", 7; client/elicitation, "Capabilities"."""
    assert capability_problem(method, params, capabilities) == required


@pytest.mark.parametrize(("capabilities", "can"), [({}, False), ({"experimental": {}}, False), ({"roots": {}}, True)])
def test_only_a_client_with_such_a_capability_can_be_asked_at_all(capabilities: dict[str, Any], can: bool) -> None:
    assert can_be_asked(capabilities) is can


def test_a_request_becomes_an_entry_without_what_the_modern_form_lacks() -> None:
    params = {"mode": "url", "url": "https://a", "message": "m", "elicitationId": "1", "task": {}, "_meta": {"progressToken": 1}}
    assert input_request("elicitation/create", dumped(params)) == {
        "method": "elicitation/create",
        "params": {"mode": "url", "url": "https://a", "message": "m"},
    }
    assert input_request("roots/list", b"") == {"method": "roots/list"}


def test_an_input_required_result_is_read_as_it_was_written() -> None:
    inputs = {"a": {"method": "roots/list"}, "b": {"method": "elicitation/create", "params": {"message": "m"}}}
    result = input_required(inputs, "sealed", b'{"name":"s"}')
    assert json.loads(result) == {
        "resultType": "input_required",
        "inputRequests": inputs,
        "requestState": "sealed",
        "_meta": {META_SERVER_INFO: {"name": "s"}},
    }
    needed = read_input_required(result)
    assert needed.requests == {"a": ("roots/list", b""), "b": ("elicitation/create", b'{"message":"m"}')}
    assert needed.request_state == b'"sealed"'


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"inputRequests": {}},
        {"inputRequests": []},
        {"inputRequests": {"a": {}}},
        {"inputRequests": {"a": {"method": "tools/call"}}},
        {"inputRequests": {"a": {"method": "roots/list", "params": []}}},
    ],
)
def test_an_input_required_that_asks_nothing_valid_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_input_required(dumped(result))


@given(objects)
def test_any_result_is_read_or_refused(result: dict[str, Any]) -> None:
    with contextlib.suppress(msgspec.DecodeError):
        read_input_required(dumped(result))


def test_the_retry_carries_the_same_params_the_answers_and_the_servers_own_state() -> None:
    """Source: MCP 2026-07-28, basic/patterns/mrtr, "Client Requirements": a state that was not given is not sent."""
    params = members(b'{"name":"x","_meta":{"a":1}}')
    assert json.loads(retried_params(params, {"q": b'{"action":"accept"}'}, b'"state"')) == {
        "name": "x",
        "_meta": {"a": 1},
        "inputResponses": {"q": {"action": "accept"}},
        "requestState": "state",
    }
    assert json.loads(retried_params(params, {}, None)) == {"name": "x", "_meta": {"a": 1}}


def test_a_clients_error_is_a_dismissal_only_where_a_form_was_asked() -> None:
    error = Response(b"1", b"", b'{"code":-1,"message":"no"}')
    assert input_response("elicitation/create", error) == b'{"action":"cancel"}'
    assert input_response("sampling/createMessage", error) is None
    assert input_response("roots/list", Response(b"1", b'{"roots":[]}', b"")) == b'{"roots":[]}'


def test_whoever_asks_too_much_reads_so() -> None:
    assert json.loads(refused_question(Request(b"7", "roots/list", b""), {"roots": {}}).error)["code"] == -32601
    error = json.loads(missing_capability({"elicitation": {"url": {}}}))
    assert (error["code"], error["data"]) == (-32021, {"requiredCapabilities": {"elicitation": {"url": {}}}})


@pytest.mark.parametrize("data", [None, [], {}, {"elicitations": 1}, {"elicitations": [1]}])
def test_an_error_without_urls_asks_nothing(data: Any) -> None:
    assert url_elicitations(dumped({"code": -32042, "message": "m", "data": data})) == {}


def test_required_urls_become_questions() -> None:
    """Source: MCP 2025-11-25, client/elicitation, "URL Elicitation Required Error"."""
    listed = [{"mode": "url", "elicitationId": "1", "url": "https://a", "message": "m"}]
    assert url_elicitations(dumped({"code": -32042, "message": "m", "data": {"elicitations": listed}})) == {
        "url1": {"method": "elicitation/create", "params": {"mode": "url", "url": "https://a", "message": "m"}}
    }


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        ({"inputRequests": {"a": {"method": "roots/list"}}}, {"a": ("roots/list", b"")}),
        (
            {"inputRequests": {"a": {"method": "elicitation/create", "params": {"message": "?"}}}},
            {"a": ("elicitation/create", b'{"message":"?"}')},
        ),
        ({"inputRequests": {"a": {"method": "tools/call"}, "b": 1, "c": {"method": "roots/list", "params": 1}}}, {}),
        ({"inputRequests": None}, {}),
        ({}, {}),
    ],
)
def test_a_task_asks_what_a_server_may_ask(task: dict[str, Any], asked: dict[str, tuple[str, bytes]]) -> None:
    """Source: SEP-2663, "Task Status"."""
    assert read_input_requests(task) == asked
