"""What one client may ask of two nodes together is what [limits] says, wherever it asks, and also while the engine is away."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.doubles.cluster_nodes import running_cluster
from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.end_to_end.moving_session import INITIALIZE, post

RATE = 5
LIMITED = f'[limits]\nrequests_per_second = {RATE}\nburst = 1\nkey = "ip"\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'


def admitted(node: GatewayProcess, until_s: float) -> int:
    """Of requests as fast as they go; all others are refused with 429."""
    count = 0
    while time.monotonic() < until_s:
        status = post(node, "/mcp", "initialize", INITIALIZE).status
        assert status in (200, 429)
        count += status == 200
        time.sleep(0.02)
    return count


def admitted_per_s(nodes: list[GatewayProcess], seconds: float) -> float:
    """By all nodes at once. What waits in their buckets, a request each, is not counted."""
    counts: list[int] = []
    started_s = time.monotonic()

    def ask(node: GatewayProcess) -> None:
        counts.append(admitted(node, started_s + seconds))

    threads = [threading.Thread(target=ask, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == len(nodes)
    return (sum(counts) - len(nodes)) / (time.monotonic() - started_s)


@pytest.mark.timeout(240)
def test_a_client_has_its_limit_once_at_whichever_nodes_it_asks(tmp_path: Path) -> None:
    with running_cluster(tmp_path, LIMITED, "a", "b", cells=1) as cluster:
        a, b = cluster.nodes["a"], cluster.nodes["b"]
        # 1. all of it at one node, soon after it asks only there
        wait_until(lambda: admitted_per_s([b], 2.0) > 0.65 * RATE, 60, "node b gives out far more than half of the limit")
        # 2. no more than it at both, while they share it anew
        assert admitted_per_s([a, b], 3.0) <= 1.1 * RATE
        # 3. nor without the engine
        cluster.nats.kill()
        assert admitted_per_s([a, b], 2.0) <= 1.1 * RATE
