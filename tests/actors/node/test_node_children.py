"""Which processes a node has."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.actors.cluster.cluster_event_log import ClusterEventLog
from mcp_gateway.actors.cluster.cluster_member import LEAVE_S
from mcp_gateway.actors.events.event_log import EventLog
from mcp_gateway.actors.node.node_children import node_children
from mcp_gateway.config.cluster_settings import ClusterSettings
from mcp_gateway.config.settings import GatewaySettings, LimitsSettings, Settings

TWO_CELLS = GatewaySettings(cells=2)


def test_a_node_that_is_alone_has_its_own_log_and_no_member() -> None:
    children = node_children(Settings(gateway=TWO_CELLS), "module:make_cell", "x")
    assert [child.name for child in children] == ["event-log", "cell-0", "cell-1"]
    assert children[0].actor_class is EventLog


@pytest.mark.parametrize(("requests_per_day", "quota_path"), [(0, None), (5, Path("/kept"))])
def test_the_member_shares_quotas_where_cells_count_them(requests_per_day: int, quota_path: Path | None) -> None:
    cluster = ClusterSettings(url="nats://127.0.0.1:1", node="a", key_file="k")
    limits, gateway = LimitsSettings(requests_per_day=requests_per_day), GatewaySettings(state_dir="/kept")
    children = node_children(Settings(gateway=gateway, cluster=cluster, limits=limits), "module:make_cell", "x")
    assert children[1].arguments.quota_path == quota_path
    assert children[1].arguments.state_path == Path("/kept")


def test_a_node_of_a_cluster_has_a_member_before_its_cells_and_the_clusters_log() -> None:
    cluster = ClusterSettings(url="nats://127.0.0.1:1", node="a", key_file="k")
    children = node_children(Settings(gateway=TWO_CELLS, cluster=cluster), "module:make_cell", "x")
    assert [child.name for child in children] == ["event-log", "cluster-member", "cell-0", "cell-1"]
    assert children[0].actor_class is ClusterEventLog
    assert children[1].arguments.node_incarnation == "x"
    assert children[1].shutdown_timeout_s > LEAVE_S, "it is not killed while it tells the others that it goes"
