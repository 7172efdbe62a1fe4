"""Runs three nodes of two cells each, joined by three NATS servers, behind a balancer that knows nothing of sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from tests.doubles.cluster_nodes import cluster_key
from tests.doubles.haproxy import HaProxy
from tests.doubles.nats_cluster import NatsCluster
from tests.end_to_end.running_gateway import FORMS, Entrance, Form, RunningGateway, start_gateway, wait_until

ClusterForm = Literal["cluster, by connection", "cluster, by request"]
CLUSTERS: Final[tuple[ClusterForm, ...]] = ("cluster, by connection", "cluster, by request")
"""What the balancer hands out to one node after the other: TCP connections, or HTTP requests."""
BALANCED: Final = [pytest.param(form, marks=pytest.mark.slow) for form in CLUSTERS]
"""For tests that run in other forms as well: seven gateways' processes are started for each of these."""
EVERY_FORM: Final[tuple[Form | ClusterForm, ...]] = (*FORMS, *CLUSTERS)

_NODES: Final = ("a", "b", "c")
_JOIN_TIMEOUT_S: Final = 60.0
_ANSWERS_IN_A_ROW: Final = 20
"""Each over a connection that either cell may get: all of one cell are as likely as one in a million."""


class RunningCluster(Entrance):
    """nodes: {name: gateway}; `url` is the balancer's."""

    def __init__(self, url: str, form: ClusterForm, nodes: Mapping[str, RunningGateway]) -> None:
        super().__init__(url, form)
        self.nodes = nodes

    def restart_count(self) -> float:
        return sum(node.restart_count() for node in self.nodes.values())


@contextmanager
def start_cluster(
    directory: Path, form: ClusterForm, backends: Sequence[Mapping[str, Any]], **tables: Mapping[str, Any]
) -> Iterator[RunningCluster]:
    """As `start_gateway`: each node must end as it asks one to. tables: of each node's file, [cluster] not among them."""
    with ExitStack() as stack:
        nats = stack.enter_context(NatsCluster(directory / "nats"))
        key_file = cluster_key(directory)
        nodes = {}
        for name in _NODES:
            (directory / name).mkdir()
            cluster = {"url": nats.url, "node": name, "key_file": str(key_file)}
            starting = start_gateway(directory / name, "two cells", backends, **tables, cluster=cluster)
            nodes[name] = stack.enter_context(starting)
        for name, node in nodes.items():
            wait_until(lambda node=node: _knows_all(node), _JOIN_TIMEOUT_S, f"each cell of {name} knows all nodes")  # type: ignore[misc]
        balancer = stack.enter_context(HaProxy(directory, {name: node.port for name, node in nodes.items()}))
        yield RunningCluster(balancer.by_connection if form == CLUSTERS[0] else balancer.by_request, form, nodes)


def _knows_all(node: RunningGateway) -> bool:
    seen = (node.health()["components"].get("cluster", {}).get("nodes") for _ in range(_ANSWERS_IN_A_ROW))
    return all(count == len(_NODES) for count in seen)


@contextmanager
def start_in(
    directory: Path, form: Form | ClusterForm, backends: Sequence[Mapping[str, Any]], **options: Any
) -> Iterator[RunningGateway | RunningCluster]:
    """In any form. directory: an empty one."""
    if form in CLUSTERS:
        with start_cluster(directory, form, backends, **options) as cluster:
            yield cluster
    else:
        with start_gateway(directory, form, backends, **options) as gateway:
            yield gateway
