"""What operators look at and use, at the addresses of a cell's server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from mcp_gateway.actors.edge.loop_port import LoopPort
from mcp_gateway.actors.messages.health import HealthRequested
from mcp_gateway.transports.downstream.operators.actions import ActionOutcome, OperatorAction
from mcp_gateway.transports.downstream.operators.actions_endpoint import ACTIONS_PATH, ActionsEndpoint
from mcp_gateway.transports.downstream.operators.dashboard_page import DASHBOARD_PATH, DASHBOARD_PATHS, DashboardEndpoint
from mcp_gateway.transports.downstream.operators.log_endpoint import LOG_PATH, LogEndpoint
from mcp_gateway.transports.downstream.operators.login_page import LOGIN_PATH, LoginEndpoint
from mcp_gateway.transports.downstream.operators.operations import OPERATIONS_PATHS, OperationsEndpoint
from mcp_gateway.transports.downstream.server.gate import Access, NoteLogIn
from mcp_gateway.transports.downstream.server.incoming import Incoming
from mcp_gateway.transports.downstream.server.operator_cookies import OperatorCookies
from mcp_gateway.transports.downstream.server.server import GatewayServer
from mcp_gateway.transports.protocol.sealed.sealing import Seal

from .operator_actions import OperatorActions


def add_operator_pages(
    server: GatewayServer,
    port: LoopPort,
    seal: Seal,
    cookies: OperatorCookies,
    take_state: Callable[[], Awaitable[dict[str, Any]]],
    actions: OperatorActions,
    note_log_in: NoteLogIn | None,
) -> None:
    """take_state: the snapshot behind the dashboard."""
    operations = OperationsEndpoint(port, HealthRequested, server.is_operator)
    for path in OPERATIONS_PATHS:
        server.add_endpoint(path, operations, access=OPERATIONS_PATHS[path])
    dashboard = DashboardEndpoint(take_state, server.may_see_clients)
    for path in DASHBOARD_PATHS:
        is_page = path == DASHBOARD_PATH
        server.add_endpoint(path, dashboard, access=Access.OPERATORS, is_page=is_page, login_path=LOGIN_PATH if is_page else "")
    log = LogEndpoint(port.settings.gateway.state_path, server.may_see_clients)
    server.add_endpoint(LOG_PATH, log, access=Access.OPERATORS)
    if server.gate is not None:
        server.add_endpoint(LOGIN_PATH, LoginEndpoint(server.gate, cookies), access=Access.EVERYBODY, is_page=True)

    async def carry_out(action: OperatorAction, incoming: Incoming) -> ActionOutcome:
        return await actions.carry_out(action, incoming.principal, incoming.remote_ip)

    may_act = server.may_see_clients
    knows_clients = server.gate is not None
    endpoint = ActionsEndpoint(seal, server.origins, may_act, carry_out, knows_clients=knows_clients, note_refused=note_log_in)
    server.add_endpoint(ACTIONS_PATH, endpoint, access=Access.ACTIONS)
