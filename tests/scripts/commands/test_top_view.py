"""What `top` makes of two looks at the metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_gateway.scripts.commands.top_view import Look, head_lines, tables, view

BEFORE = """
mcp_gateway_requests_total{method="tools/call",outcome="ok",backend="a",transport="websocket"} 10
mcp_gateway_request_duration_seconds_sum{method="tools/call",backend="a"} 1.0
mcp_gateway_tool_calls_total{backend="a",tool="read",outcome="ok"} 10
mcp_gateway_tool_calls_total{backend="a",tool="gone",outcome="ok"} 99
"""
NOW = """
mcp_gateway_requests_total{method="tools/call",outcome="ok",backend="a",transport="websocket"} 26
mcp_gateway_requests_total{method="tools/call",outcome="upstream_failed",backend="a",transport="websocket"} 4
mcp_gateway_requests_total{method="tools/list",outcome="client_gone",backend="a",transport="websocket"} 1
mcp_gateway_request_duration_seconds_sum{method="tools/call",backend="a"} 3.0
mcp_gateway_tool_calls_total{backend="a",tool="read",outcome="ok"} 20
mcp_gateway_tool_calls_total{backend="a",tool="read",outcome="error"} 10
mcp_gateway_tool_calls_total{backend="a",tool="write",outcome="ok"} 30
mcp_gateway_tool_calls_total{backend="a",tool="gone",outcome="ok"} 1
"""
STATE: dict[str, Any] = {
    "viability": {
        "status": "hurting",
        "aches": [{"source": "errors/a", "reason": "20 percent"}],
        "backends": {"a": {"requests_per_s": 10.0, "fault_share": 0.2, "p50_s": 0.012, "p95_s": 1.5, "pool_use": 0.5}},
    },
    "node": {
        "backends": [
            {"name": "idle", "replicas": []},
            {"name": "a", "replicas": [{"health": "healthy"}, {"health": "unhealthy"}]},
        ]
    },
}


def look(text: str, at_s: float) -> Look:
    return Look.of(text, at_s)


def seen(clients: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return view(look(BEFORE, 100.0), look(NOW, 102.0), STATE, clients)


def test_what_happened_between_two_looks_is_shown_the_busiest_first() -> None:
    shown = seen()
    assert (shown["requests_per_second"], shown["error_share"], shown["mean_seconds"]) == (
        10.5,
        round(4 / 21, 4),
        round(2 / 21, 6),
    )
    assert shown["tools"] == [
        {"backend": "a", "tool": "write", "calls_per_second": 15.0, "error_share": 0.0},
        {"backend": "a", "tool": "read", "calls_per_second": 10.0, "error_share": 0.5},
    ]
    assert [row["method"] for row in shown["methods"]] == ["tools/call", "tools/list"]
    assert [(row["backend"], row["healthy"], row["replicas"]) for row in shown["backends"]] == [("a", 1, 2), ("idle", 0, 0)]
    assert "clients" not in shown
    json.dumps(shown)


def test_clients_are_told_apart_by_program_and_person() -> None:
    row = {"client": "editor", "principal": "", "address": "10.0.0.1", "session": "s", "calls": 1, "streams": 1}
    rows = [row, {**row, "session": "t"}, {**row, "client": "", "session": "", "calls": 9}]
    assert seen(rows)["clients"] == [
        {"client": "unnamed", "who": "10.0.0.1", "sessions": 0, "calls": 9, "streams": 1},
        {"client": "editor", "who": "10.0.0.1", "sessions": 2, "calls": 2, "streams": 2},
    ]


def test_a_gateway_that_says_nothing_yet_is_shown_all_the_same() -> None:
    shown = view(look("", 1.0), look("", 1.0), {}, [])
    assert (shown["status"], shown["requests_per_second"], tables(shown)) == ("unknown", 0.0, [])
    assert head_lines(shown) == ["unknown   0.0 requests/s   0% errors   mean -"]


def test_people_read_what_hurts_first_and_times_in_their_units() -> None:
    assert head_lines(seen()) == ["hurting   10.5 requests/s   19.1% errors   mean 95.2ms", "hurts: errors/a: 20 percent"]
    (columns, rows), *_ = tables(seen())
    assert dict(zip(columns, rows[0], strict=True)) == {
        "BACKEND": "a",
        "CALLS/S": "10.0",
        "ERRORS": "20.0%",
        "P50": "12.0ms",
        "P95": "1.50s",
        "POOL": "50.0%",
        "WELL": "1/2",
    }


def test_what_is_no_exposition_is_an_error_of_one_kind() -> None:
    with pytest.raises(ValueError, match=r"."):
        look('{"error": 1', 0.0)
