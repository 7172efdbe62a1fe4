"""The status of a gateway as lines for a person."""

from __future__ import annotations

from typing import Any

from mcp_gateway.scripts.commands.status_table import status_lines

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "uptime_seconds": 61.0,
    "tree": [],
    "backends": [],
    "sessions": 2,
    "connections": {"http_sse": 1},
}


def test_what_hurts_stands_at_the_end() -> None:
    aches = [{"source": "latency/files", "reason": "slow"}, {"source": "restarts", "reason": "1 restart"}]
    lines = status_lines({**STATUS, "viability": {"status": "strained", "pain": 0.312, "aches": aches}})
    assert lines[-4:] == [
        "sessions: 2   connections: http_sse 1",
        "viability: strained   pain: 0.31",
        "  latency/files: slow",
        "  restarts: 1 restart",
    ]


def test_a_gateway_that_nobody_has_judged_yet_says_nothing_of_it() -> None:
    assert status_lines(STATUS)[-1] == "sessions: 2   connections: http_sse 1"
