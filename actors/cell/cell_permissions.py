"""What the clients of a cell may do, by the settings that it runs with."""

from __future__ import annotations

from collections.abc import Callable

from mcp_gateway.actors.routing.route_table import RouteTable, configured_routes
from mcp_gateway.config.settings import Settings
from mcp_gateway.transports.policy.actions import Names
from mcp_gateway.transports.policy.permissions import Note, Permissions
from mcp_gateway.transports.policy.policies import Policies
from mcp_gateway.transports.policy.views import Views
from mcp_gateway.transports.ports.edge_port import Exchange
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.revisions import TASK_METHODS
from mcp_gateway.transports.protocol.mcp.tasks import task_id_of
from mcp_gateway.transports.protocol.merging.naming import Naming
from mcp_gateway.transports.protocol.sealed.task_ids import TaskId


def permissions_of(settings: Settings, read_task: Callable[[str], TaskId | None], note: Note | None = None) -> Permissions | None:
    """None where everybody may do everything. read_task: the task behind an id of ours. note: as `Permissions` has it."""
    if not settings.policies:
        return None
    return Permissions(
        Policies(settings.policies), _names(settings, read_task), knows_clients=settings.auth is not None, note=note
    )


def views_of(settings: Settings, read_task: Callable[[str], TaskId | None]) -> Views:
    """The virtual servers of a configuration. read_task: the task behind an id of ours."""
    return Views(settings.servers, _namings(settings), _names(settings, read_task))


def _namings(settings: Settings) -> list[Naming]:
    return [Naming(backend.name, backend.prefix) for backend in settings.backends]


def _names(settings: Settings, read_task: Callable[[str], TaskId | None]) -> Names:
    routes = RouteTable(configured_routes(settings.backends, settings.routes))

    def find_backend(exchange: Exchange) -> str:
        message = exchange.message
        if isinstance(message, Request) and message.method in TASK_METHODS:
            task = read_task(task_id_of(message.params) or "")
            return "" if task is None else task.backend
        route = routes.match(exchange.target, exchange.transport)
        return "" if route is None else route.backend

    return Names(_namings(settings), find_backend)
