"""The refusal table is a contract: this is the same table, written out a second time."""

from __future__ import annotations

import json

import pytest

from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS, Refused

# Source: the gateway's contract, "What refuses a request". {reason: (code, HTTP status, whether Retry-After is sent)}
CONTRACT = {
    "parse_error": (-32700, 400, False),
    "invalid_request": (-32600, 400, False),
    "unknown_method": (-32601, 400, False),
    "invalid_params": (-32602, 400, False),
    "header_mismatch": (-32020, 400, False),
    "unsupported_version": (-32022, 400, False),
    "missing_capability": (-32021, 400, False),
    "origin_forbidden": (4030, 403, False),
    "unauthorized": (4010, 401, False),
    "forbidden": (4031, 403, False),
    "insufficient_scope": (4032, 403, False),
    "consent_required": (4033, 403, False),
    "session_not_found": (4040, 404, False),
    "too_large": (4130, 413, False),
    "rate_limited": (4290, 429, True),
    "too_many_connections": (4291, 503, True),
    "no_backend": (5030, 503, True),
    "circuit_open": (5031, 503, True),
    "pool_exhausted": (5032, 503, True),
    "draining": (5033, 503, True),
    "owner_unreachable": (5034, 503, True),
    "upstream_failed": (5020, 502, False),
    "upstream_timeout": (5040, 504, False),
}


def test_the_table_is_the_contract():
    assert {reason: (kind.code, kind.status, kind.retry) for reason, kind in REFUSALS.items()} == CONTRACT


@pytest.mark.parametrize("reason", CONTRACT)
def test_every_refusal_is_a_json_rpc_error_with_its_reason(reason):
    """Source: JSON-RPC 2.0, "Error object"; the reason in data is ours."""
    body = json.loads(Refused(reason, "why", request_id=b'"a"').body())
    code, _, retries = CONTRACT[reason]
    data = {"reason": reason, "retry_after": 1.0} if retries else {"reason": reason}
    assert body == {"jsonrpc": "2.0", "id": "a", "error": {"code": code, "message": "why", "data": data}}


def test_an_unknown_id_is_null():
    """Source: JSON-RPC 2.0, "Response object"."""
    assert json.loads(Refused("parse_error", "why").body())["id"] is None


def test_the_id_keeps_its_bytes():
    body = Refused("invalid_params", "why", request_id=b"123456789012345678901234567890").body()
    assert b'"id":123456789012345678901234567890,' in body


def test_a_status_of_the_revision_and_more_data_win_over_the_table():
    """Source: MCP 2026-07-28, basic/transports/streamable-http: an unknown method is 404."""
    refused = Refused("unknown_method", "why", status=404, data={"method": "x/y"})
    assert refused.status == 404
    assert json.loads(refused.body())["error"]["data"] == {"reason": "unknown_method", "method": "x/y"}


@pytest.mark.parametrize("reason", CONTRACT)
def test_retry_after_is_given_where_somebody_has_said_it_and_else_where_a_retry_may_help(reason):
    """Source: RFC 9110, 10.2.3: a server's own word is passed on, whatever its refusal is called here."""
    said, unsaid = Refused(reason, "why", retry_after_s=7.5), Refused(reason, "why")
    assert (said.retry_after_s, json.loads(said.body())["error"]["data"]["retry_after"]) == (7.5, 7.5)
    assert unsaid.retry_after_s == (1.0 if CONTRACT[reason][2] else None)


def test_an_unknown_reason_is_a_defect_not_a_refusal():
    with pytest.raises(KeyError):
        Refused("because", "why")
