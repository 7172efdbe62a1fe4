"""What a client may ask in a day is what [limits] says over all cells of a node, and over its restarts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mcp_gateway.actors.storage.quota_file import QuotaFile
from mcp_gateway.transports.ports.daily_quota import day_of
from tests.doubles.gateway_process import GatewayProcess, wait_until
from tests.end_to_end.moving_session import INITIALIZE, post

LIMIT = 20
LIMITED = f'[gateway]\ncells = 2\n[limits]\nrequests_per_day = {LIMIT}\n[[backends]]\nname = "demo"\nbuiltin = "demo"\n'


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


@pytest.mark.timeout(120)
def test_a_client_has_its_day_once_over_all_cells_and_has_used_it_after_a_restart(tmp_path: Path) -> None:
    folder, today = tmp_path / "node", day_of(time.time())
    with GatewayProcess(folder, cell_factory=None, settings=LIMITED) as node:
        # 1. all but one, at both cells
        assert [is_admitted(node) for _ in range(LIMIT - 1)] == [True] * (LIMIT - 1)
        # 2. a cell that has reported a request knows of all that were reported before: only the other one may let one more pass
        admitted, refused = LIMIT - 1, 0
        while refused < LIMIT:
            wait_until_counted(folder, today, admitted)
            if is_admitted(node):
                admitted, refused = admitted + 1, 0
            else:
                refused += 1
        assert node.end() == 0
    with GatewayProcess(folder, cell_factory=None, settings=LIMITED) as node:
        # 3. it is remembered
        is_remembered = not any(is_admitted(node) for _ in range(LIMIT // 2))
    if day_of(time.time()) != today:
        pytest.skip("another day began meanwhile")
    assert LIMIT <= admitted <= LIMIT + 1
    assert is_remembered
