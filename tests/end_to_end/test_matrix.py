"""Any client to any server: each feature of MCP in each cell of the matrix, in one run through one gateway."""

from __future__ import annotations

import warnings

import pytest
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.end_to_end.matrix import CLIENTS, FEATURES, FEATURES_ALONE, SERVERS, ClientKind, Outcomes, known_gaps, run_matrix
from tests.end_to_end.matrix_table import markdown
from tests.end_to_end.running_cluster import BALANCED


@pytest.fixture(scope="module", params=["embedded", "two cells", *BALANCED])
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """On two cells, and on three nodes, a client's requests land on any, and servers behind pipes belong to one of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)  # the legacy era is one half of the matrix
        return run_matrix(tmp_path_factory.mktemp("matrix"), request.param)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_uses_every_feature_of_every_server(outcomes: Outcomes, client: ClientKind) -> None:
    failures = {server.name: outcomes[client, server] for server in SERVERS if outcomes[client, server]}
    assert failures == {}


@pytest.mark.timeout(240)
def test_the_table_has_a_row_for_each_client_and_a_reason_for_each_gap(outcomes: Outcomes) -> None:
    lines = markdown(outcomes).splitlines()
    assert len([line for line in lines if line.startswith("| 20")]) == len(CLIENTS)
    assert {line.count("|") for line in lines if line.startswith("|")} == {len(SERVERS) + 2}
    assert all(reason in "\n".join(lines) for reason in known_gaps().values())


def test_every_gap_is_one_of_the_matrix_and_has_a_reason() -> None:
    clients, servers = {each.name for each in CLIENTS}, {each.name for each in SERVERS}
    for (client, server, feature), reason in known_gaps().items():
        assert (client in clients, server in servers, feature in {*FEATURES, *FEATURES_ALONE}) == (True, True, True)
        assert reason.endswith(".")
