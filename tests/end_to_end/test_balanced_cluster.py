"""Three nodes behind HAProxy, which hands each request to the next one, are to clients of both eras what one node is."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPDeprecationWarning

from tests.doubles.haproxy import skip_without_haproxy
from tests.end_to_end.matrix import CLIENTS, SERVERS, run_matrix

OVER_HTTP = [client for client in CLIENTS if client.transport == "Streamable HTTP"]
BEHIND_PIPES = [server for server in SERVERS if (server.era, server.transport) == ("legacy", "websocket")]
"""The whole matrix is `test_matrix.py`'s. Here a session is a connection that one node has open."""


@pytest.mark.timeout(240)
def test_a_client_of_either_era_uses_every_feature_of_a_server_whichever_nodes_its_requests_reach(tmp_path: Path) -> None:
    skip_without_haproxy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MCPDeprecationWarning)
        outcomes = run_matrix(tmp_path, "cluster, by request", OVER_HTTP, BEHIND_PIPES)
    assert len(outcomes) == 2
    assert not any(outcomes.values()), outcomes
