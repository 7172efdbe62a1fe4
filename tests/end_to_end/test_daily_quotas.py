"""What a client may ask in a day is what [limits] says over all cells of a node, its restarts, and all nodes of a cluster."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mcp_gateway.actors.storage.quota_file import QuotaFile
from mcp_gateway.transports.ports.daily_quota import day_of
from tests.doubles.cluster_nodes import running_cluster
from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.end_to_end.moving_session import INITIALIZE, post

LIMIT = 20
LIMITED = f'[limits]\nrequests_per_day = {LIMIT}\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'
TWO_CELLS = f"[gateway]\ncells = 2\n{LIMITED}"
_LONGEST_TEST_S = 120.0


def is_admitted(node: GatewayProcess) -> bool:
    """Over a connection of its own, so that any cell may have it."""
    answer = post(node, "/mcp", "initialize", INITIALIZE)
    assert answer.status in (200, 429), answer.body
    if answer.status == 429:
        assert answer.body["error"]["data"]["reason"] == "rate_limited"
        assert 1 <= int(answer.headers["Retry-After"]) <= 86_400
    return answer.status == 200


def counted(folder: Path, day: int) -> int:
    """By all cells, in what they have reported."""
    file = QuotaFile(folder, "")
    try:
        return sum(file.news(day, 1_000).values())
    finally:
        file.close()


def wait_until_counted(folder: Path, day: int, count: int) -> None:
    wait_until(lambda: counted(folder, day) == count or day_of(time.time()) != day, 30, f"{count} requests are reported")


def ask_until_refused(node: GatewayProcess, folder: Path, day: int, admitted: int) -> int:
    """Each time as many requests are admitted, all of them have been reported to where this node counts; how many in the end."""
    refused = 0
    while refused < LIMIT:
        wait_until_counted(folder, day, admitted)
        if is_admitted(node):
            admitted, refused = admitted + 1, 0
        else:
            refused += 1
    return admitted


def day_that_lasts() -> int:
    """Today, once enough of it is left for a whole test."""
    left_s = 86_400 - time.time() % 86_400
    if left_s < _LONGEST_TEST_S:
        time.sleep(left_s)
    return day_of(time.time())


@pytest.mark.timeout(240)
def test_a_client_has_its_day_once_over_all_cells_and_has_used_it_after_a_restart(tmp_path: Path) -> None:
    folder, today = tmp_path / "node", day_that_lasts()
    with GatewayProcess(folder, cell_factory=None, settings=TWO_CELLS) as node:
        # 1. all but one, at both cells
        assert [is_admitted(node) for _ in range(LIMIT - 1)] == [True] * (LIMIT - 1)
        # 2. a cell that has reported a request knows of all that were reported before: only the other one may let one more pass
        admitted = ask_until_refused(node, folder, today, LIMIT - 1)
        assert node.end() == 0
    with GatewayProcess(folder, cell_factory=None, settings=TWO_CELLS) as node:
        # 3. it is remembered
        is_remembered = not any(is_admitted(node) for _ in range(LIMIT // 2))
    assert LIMIT <= admitted <= LIMIT + 1
    assert is_remembered


@pytest.mark.timeout(240)
def test_a_client_that_has_used_its_day_at_one_node_of_a_cluster_has_used_it_at_the_other(tmp_path: Path) -> None:
    today = day_that_lasts()
    with running_cluster(tmp_path, LIMITED, "a", "b", cells=1) as cluster:
        a, b = cluster.nodes["a"], cluster.nodes["b"]
        at_a = sum(is_admitted(a) for _ in range(LIMIT + 1))
        in_all = ask_until_refused(b, tmp_path / "b", today, at_a)
    assert at_a == LIMIT
    assert in_all <= LIMIT + 1  # which b let pass before its next report
