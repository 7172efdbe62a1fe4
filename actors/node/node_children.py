"""The processes of a node, in the order in which they start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mcp_gateway.actors.cluster.cluster_event_log import ClusterEventLog
from mcp_gateway.actors.cluster.cluster_member import LEAVE_S, ClusterMember
from mcp_gateway.actors.events.event_log import EventLog
from mcp_gateway.actors.messages.cluster import ClusterMemberArguments
from mcp_gateway.actors.messages.node import CLUSTER_MEMBER, EVENT_LOG, CellArguments, EventLogArguments
from mcp_gateway.actors.supervision.restart_plan import ChildSpec
from mcp_gateway.config.settings import Settings

from .cell_process import STOP_CONTENT_S, CellProcess


def cell_short_name(index: int) -> str:
    """The name of a cell among its siblings; "cell/0" is its full name, and "/" separates levels."""
    return f"cell-{index}"


def node_children(settings: Settings, cell_factory: str, node_incarnation: str) -> Sequence[ChildSpec]:
    """The log, the member of the cluster where there is one, the cells. node_incarnation: random for each start of the node."""
    return [_log(settings), *_member(settings, node_incarnation), *_cells(settings, cell_factory)]


def _log(settings: Settings) -> ChildSpec:
    arguments = EventLogArguments(
        state_path=settings.gateway.state_path,
        retention_events=settings.transports.http_sse.retention_events,
        cell_count=settings.gateway.cell_count,
        cluster=settings.cluster,
    )
    log_class = EventLog if settings.cluster is None else ClusterEventLog
    return ChildSpec(name=EVENT_LOG, actor_class=log_class, arguments=arguments, start_timeout_s=5.0)


def _member(settings: Settings, node_incarnation: str) -> Iterator[ChildSpec]:
    if settings.cluster is not None:
        arguments = ClusterMemberArguments(
            settings=settings.cluster,
            node_incarnation=node_incarnation,
            cell_count=settings.gateway.cell_count,
            retention_events=settings.transports.http_sse.retention_events,
            url=settings.gateway.public_url or settings.url,
            state_path=settings.gateway.state_path,
            quota_path=settings.gateway.state_path if settings.limits.requests_per_day else None,
        )
        yield ChildSpec(
            name=CLUSTER_MEMBER,
            actor_class=ClusterMember,
            arguments=arguments,
            start_timeout_s=5.0,
            shutdown_timeout_s=LEAVE_S + 1.0,
        )


def _cells(settings: Settings, cell_factory: str) -> Iterator[ChildSpec]:
    for index in range(settings.gateway.cell_count):
        yield ChildSpec(
            name=cell_short_name(index),
            actor_class=CellProcess,
            arguments=CellArguments(settings=settings, cell_factory=cell_factory, cell_index=index),
            shutdown_timeout_s=settings.gateway.drain_timeout + STOP_CONTENT_S + 1.0,
        )
