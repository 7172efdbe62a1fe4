"""What says that a client wants tasks, and that a server has them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.transports.protocol.mcp.tasks import (
    TASKS_EXTENSION,
    declares_extension,
    missing_extension,
    offers_extension,
    offers_task_calls,
    task_id_of,
    undeclared_tasks,
    wants_task,
)

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


@pytest.mark.parametrize(
    ("capabilities", "offers"),
    [
        ({"extensions": {TASKS_EXTENSION: {}}}, True),
        ({"extensions": {TASKS_EXTENSION: {"some": "setting"}, "other": {}}}, True),
        ({"extensions": {TASKS_EXTENSION: None}}, False),
        ({"extensions": {TASKS_EXTENSION: True}}, False),
        ({"extensions": [TASKS_EXTENSION]}, False),
        ({"tasks": {}}, False),
        ({}, False),
        (None, False),
    ],
)
def test_the_extension_is_offered_and_declared_by_its_name(capabilities: Any, offers: bool) -> None:
    """Source: SEP-2663, "Capability Negotiation"."""
    assert offers_extension(capabilities) == offers
    assert declares_extension(json.dumps({"_meta": {CAPABILITIES: capabilities}}).encode()) == offers


@pytest.mark.parametrize("params", [b"", b"{}", b'{"_meta": 1}', b'{"name": "io.modelcontextprotocol/tasks"}'])
def test_a_request_without_capabilities_declares_nothing(params: bytes) -> None:
    assert not declares_extension(params)


@pytest.mark.parametrize(
    ("capabilities", "offers"),
    [
        ({"tasks": {"requests": {"tools": {"call": {}}}}}, True),
        ({"tasks": {"list": {}, "requests": {"tools": {}}}}, False),
        ({"tasks": {"requests": {"sampling": {"createMessage": {}}}}}, False),
        ({"tasks": {"requests": True}}, False),
        ({"tasks": {}}, False),
        ({}, False),
        ([], False),
    ],
)
def test_a_legacy_server_takes_calls_as_tasks_where_it_says_so(capabilities: Any, offers: bool) -> None:
    """Source: MCP 2025-11-25, basic/utilities/tasks, "Server Capabilities": the set is exhaustive."""
    assert offers_task_calls(capabilities) == offers


@pytest.mark.parametrize(
    ("params", "wants"),
    [
        (b'{"name": "a", "task": {}}', True),
        (b'{"name": "a", "task": {"ttl": 60000}}', True),
        (b'{"name": "a", "task": null}', False),
        (b'{"name": "a", "task": true}', False),
        (b'{"name": "task", "arguments": {"task": {}}}', False),
        (b'{"name": "a"}', False),
        (b"", False),
    ],
)
def test_a_legacy_call_wants_a_task_by_a_member_of_its_params(params: bytes, wants: bool) -> None:
    assert wants_task(params) == wants


@pytest.mark.parametrize(("params", "task_id"), [(b'{"taskId": "T1"}', "T1"), (b'{"taskId": 1}', None), (b"", None)])
def test_a_request_about_a_task_names_it(params: bytes, task_id: str | None) -> None:
    assert task_id_of(params) == task_id


def test_a_client_without_the_extension_reads_what_it_lacks() -> None:
    answered, refused = json.loads(missing_extension()), json.loads(undeclared_tasks(b"7").body())
    for error in (answered, refused["error"]):
        assert error["code"] == -32021
        assert error["data"]["requiredCapabilities"] == {"extensions": {TASKS_EXTENSION: {}}}
    assert refused["id"] == 7
