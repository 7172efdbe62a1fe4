"""What a cell permits, by its routes and the ids of tasks: the backend that a policy names is the one that is reached."""

from __future__ import annotations

import json
from typing import Any

import attrs

from mcp_gateway.actors.cell.cell_permissions import permissions_of
from mcp_gateway.config.backend_settings import RouteSettings
from mcp_gateway.config.identity_settings import PolicySettings
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.ports.request_kind import RequestKind
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.refusals import Refused
from mcp_gateway.transports.protocol.merging.naming import route_target
from mcp_gateway.transports.protocol.sealed.sealing import Seal
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId, read_task_id, sealed_task_id
from tests.doubles.running_cell import cell_settings

SEAL = Seal(b"0123456789abcdef")
BACKENDS = [{"name": name, "replicas": [f"http://127.0.0.1:{port}/mcp"]} for name, port in (("files", 3001), ("mail", 3002))]
ROUTES = (
    RouteSettings(pattern="tools/call/files__*", backend="files"),
    RouteSettings(pattern="tools/call/files__send", backend="mail"),
    RouteSettings(pattern="tools/call/files__live", backend="mail", transports=("websocket",)),
)


def is_allowed(policy: dict[str, Any], method: str, transport: str = "streamable_http", **params: Any) -> bool:
    settings = cell_settings(BACKENDS)
    policies = (PolicySettings(**{"effect": "allow", **policy}),)
    settings = attrs.evolve(settings, routes=ROUTES, policies=policies)
    permissions = permissions_of(settings, lambda shown: read_task_id(SEAL, shown))
    assert permissions is not None
    body = json.dumps(params).encode()
    exchange = Exchange(
        exchange_id=1,
        transport=transport,
        revision="2026-07-28",
        endpoint="",
        kind=RequestKind.REQUEST,
        message=Request(b"1", method, body),
        target=route_target(method, body, b"1"),
        deadline_s=1.0,
    )
    try:
        permissions.check(exchange)
    except Refused:
        return False
    return True


def test_without_policies_nothing_is_asked() -> None:
    settings = cell_settings(BACKENDS)
    assert permissions_of(settings, lambda shown: read_task_id(SEAL, shown)) is None


def test_a_backend_is_the_one_that_a_route_leads_to() -> None:
    """Attack: a name that looks like one backend's and leads to another one."""
    files, mail = {"backends": ["files"]}, {"backends": ["mail"]}
    assert is_allowed(files, "tools/call", name="files__read")
    assert not is_allowed(files, "tools/call", name="files__send")
    assert is_allowed(mail, "tools/call", name="files__send")
    assert is_allowed(files, "tools/call", name="files__live")
    assert is_allowed(mail, "tools/call", "websocket", name="files__live")
    assert not is_allowed(mail, "tools/call", name="nowhere")
    assert is_allowed({"tools": ["mail__files__send"]}, "tools/call", name="files__send")


def test_a_task_is_its_backends() -> None:
    shown = sealed_task_id(SEAL, TaskId("mail", "http://127.0.0.1:3002/mcp", "", "t"))
    assert not is_allowed({"effect": "deny", "backends": ["mail"]}, "tasks/get", taskId=shown)
    assert is_allowed({"effect": "deny", "backends": ["files"]}, "tasks/get", taskId=shown)
    assert is_allowed({"effect": "deny", "backends": ["mail"]}, "tasks/get", taskId="of nobody")
