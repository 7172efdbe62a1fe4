from __future__ import annotations

import grpc
import pytest

from mcp_gateway.transports.protocol.grpc.statuses import code_of, status_of
from mcp_gateway.transports.protocol.mcp.refusals import REFUSALS


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        ("INVALID_ARGUMENT", None, -32602),
        ("UNIMPLEMENTED", None, -32601),
        ("INTERNAL", "-32603", -32603),
        ("INTERNAL", "7", 7),
        ("INTERNAL", None, None),
        ("UNAVAILABLE", None, None),
        ("DEADLINE_EXCEEDED", None, None),
        ("INTERNAL", "x", None),
        ("INTERNAL", "--1", None),
        ("INTERNAL", "٣", None),
        ("INTERNAL", "9" * 5_000, None),
    ],
)
def test_a_status_is_an_error_of_the_server_or_a_call_that_failed(status: str, told: str | None, code: int | None) -> None:
    assert code_of(status, told) == code


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_has_a_status_that_grpc_knows(reason: str) -> None:
    kind = REFUSALS[reason]
    assert hasattr(grpc.StatusCode, status_of(kind.status, kind.code))


def test_what_helps_to_try_again_is_unavailable_and_what_does_not_is_not() -> None:
    retried = {reason for reason, kind in REFUSALS.items() if status_of(kind.status, kind.code) == "UNAVAILABLE"}
    assert retried == {
        *("no_backend", "circuit_open", "pool_exhausted", "draining", "owner_unreachable", "too_many_connections"),
        "upstream_failed",
    }
    assert status_of(200, -32601) == "UNIMPLEMENTED"
    assert status_of(200, 1234) == "INTERNAL"
