"""Any client to any server: each feature of MCP in each cell of the matrix, in one run through one gateway."""

from __future__ import annotations

import warnings

import pytest
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.end_to_end.matrix import (
    CLIENTS,
    SERVERS,
    ClientKind,
    Outcomes,
    gaps_of,
    known_gaps,
    run_matrix,
)
from tests.end_to_end.matrix_features import FEATURES, FEATURES_ALONE
from tests.end_to_end.matrix_table import markdown
from tests.end_to_end.running_cluster import BALANCED


@pytest.fixture(scope="module", params=["embedded", "two cells", *BALANCED])
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """On two cells, and on three nodes, a client's requests land on any, and servers behind pipes belong to one of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)  # the legacy era is one half of the matrix
        return run_matrix(tmp_path_factory.mktemp("matrix"), request.param)


@pytest.mark.timeout(360)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_client_uses_every_feature_of_every_server(outcomes: Outcomes, client: ClientKind) -> None:
    found = {server.name: outcomes[client, server] for server in SERVERS if (client, server) in outcomes}
    if not found:
        pytest.skip("no cluster is tried with this client")
    assert found == {server.name: {} for server in SERVERS}


@pytest.mark.timeout(360)
def test_the_table_has_a_row_for_each_client_and_a_reason_for_each_gap(outcomes: Outcomes) -> None:
    lines = markdown(outcomes).splitlines()
    assert len([line for line in lines if line.startswith("| 20")]) == len({client for client, _ in outcomes})
    assert {line.count("|") for line in lines if line.startswith("|")} == {len(SERVERS) + 2}
    assert all(gap.reason in "\n".join(lines) for gap in known_gaps())


def test_every_gap_is_of_the_matrix_and_has_a_reason() -> None:
    for gap in known_gaps():
        assert any(gap.has(client, server) for client in CLIENTS for server in SERVERS), gap
        assert {*FEATURES, *FEATURES_ALONE} >= set(gap.features), gap
        assert gap.reason.endswith(".")


def test_what_has_a_gap_speaks_grpc_whose_proto_has_no_words_for_it() -> None:
    """Of every other client at every other server all is tried."""
    with_gaps = {(client.transport, server.transport) for client in CLIENTS for server in SERVERS if gaps_of(client, server)}
    assert with_gaps == {
        (client.transport, server.transport)
        for client in CLIENTS
        for server in SERVERS
        if client.transport == "gRPC" or server.transport == "grpc"
    }
