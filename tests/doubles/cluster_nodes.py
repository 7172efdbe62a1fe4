"""Nodes of one cluster, each a real gateway, and the NATS server that joins them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.doubles.nats_server import NatsServer


@attrs.define
class Nodes:
    """{name: gateway}, those of one cluster."""

    nodes: dict[str, GatewayProcess]

    def status(self, node: str) -> dict[str, Any]:
        """What this node says of the cluster."""
        found: dict[str, Any] = self.nodes[node].status()["cluster"]
        return found

    def sees(self, node: str, others: set[str]) -> bool:
        """Whether the node is a member and sees itself and these."""
        status = self.status(node)
        return status["is_member"] and {row["name"] for row in status["nodes"]} == others | {node}

    def wait_until_all_see_all(self) -> None:
        names = set(self.nodes)
        for name in names:
            wait_until(lambda name=name: self.sees(name, names - {name}), 30, f"{name} sees all of {names}")  # type: ignore[misc]


@attrs.define
class Cluster(Nodes):
    """With the one NATS server that joins them."""

    nats: NatsServer


def node_settings(nats_url: str, node: str, key_file: Path, rest: str, *, cells: int = 2) -> str:
    cluster = f'[cluster]\nurl = "{nats_url}"\nnode = "{node}"\nkey_file = "{key_file}"\n'
    return f"[gateway]\ncells = {cells}\n{cluster}{rest}"


def cluster_key(folder: Path) -> Path:
    key_file = folder / "cluster.key"
    with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    return key_file


@contextmanager
def running_nodes(
    folder: Path, nats_url: str, rest: str, *names: str, cells: int = 2, cell_factory: str | None = None
) -> Iterator[Nodes]:
    """rest: of the configuration, the same on all nodes."""
    key_file = cluster_key(folder)
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                GatewayProcess(
                    folder / name, cell_factory=cell_factory, settings=node_settings(nats_url, name, key_file, rest, cells=cells)
                )
            )
            for name in names
        }
        nodes = Nodes(running)
        nodes.wait_until_all_see_all()
        yield nodes


@contextmanager
def running_cluster(folder: Path, rest: str, *names: str, cells: int = 2, cell_factory: str | None = None) -> Iterator[Cluster]:
    """As `running_nodes`, with one NATS server."""
    with (
        NatsServer(folder / "nats") as nats,
        running_nodes(folder, nats.url, rest, *names, cells=cells, cell_factory=cell_factory) as running,
    ):
        yield Cluster(running.nodes, nats)
