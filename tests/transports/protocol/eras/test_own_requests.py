"""What servers read of the gateway itself: who it is, and nothing that it could be asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.config.version import VERSION
from mcp_gateway.transports.protocol.eras import own_requests
from mcp_gateway.transports.protocol.eras.own_requests import PROBE_ID, discover, initialize, listen, ping
from mcp_gateway.transports.protocol.mcp.jsonrpc import Request
from mcp_gateway.transports.protocol.mcp.revisions import (
    META_CLIENT_CAPABILITIES,
    META_CLIENT_INFO,
    META_VERSION,
    NEWEST,
    NEWEST_LEGACY,
)

GATEWAY = {"name": "mcp-gateway", "version": VERSION}


def params(request: Request) -> Any:
    return json.loads(request.params)


def test_a_modern_request_of_its_own_says_who_asks_in_every_field_that_the_revision_wants() -> None:
    """Source: MCP 2026-07-28, basic/index, "Per-request protocol fields"."""
    meta = {META_VERSION: NEWEST, META_CLIENT_INFO: GATEWAY, META_CLIENT_CAPABILITIES: {}}
    assert discover(PROBE_ID).method == "server/discover"
    assert params(discover(PROBE_ID)) == {"_meta": meta}
    listening = listen(PROBE_ID, {"toolsListChanged": True})
    assert listening.method == "subscriptions/listen"
    assert params(listening) == {"_meta": meta, "notifications": {"toolsListChanged": True}}


def test_a_request_for_a_client_says_who_the_client_is() -> None:
    meta = params(discover(b"1", {"name": "c"}, {"roots": {}}))["_meta"]
    assert (meta[META_CLIENT_INFO], meta[META_CLIENT_CAPABILITIES]) == ({"name": "c"}, {"roots": {}})


@pytest.mark.parametrize("revision", [NEWEST_LEGACY, "2025-03-26"])
def test_a_session_of_its_own_cannot_be_asked_anything(revision: str) -> None:
    opening = initialize(PROBE_ID, revision)
    assert opening.method == "initialize"
    assert params(opening) == {"protocolVersion": revision, "capabilities": {}, "clientInfo": GATEWAY}
    assert ping(PROBE_ID) == Request(PROBE_ID, "ping", b"")


def test_each_purpose_has_an_id_of_its_own() -> None:
    ids = [value for name, value in vars(own_requests).items() if name.endswith("_ID")]
    assert len(ids) == len(set(ids))
    assert all(json.loads(each).startswith("mcp-gateway-") for each in ids)
