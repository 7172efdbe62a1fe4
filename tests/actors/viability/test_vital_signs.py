"""Vital signs: what an exposition says of the node, and what happened between two of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Sample

from mcp_gateway.actors.viability.vital_signs import BackendFlow, VitalSigns, backend_flow, quantile, vital_signs

REPLICA = "http://127.0.0.1:3001/mcp"
INFINITE = float("inf")


def signs(*lines: tuple[str, dict[str, str], float], at_s: float = 0.0) -> VitalSigns:
    samples = [Sample(f"mcp_gateway_{name}", labels, value) for name, labels, value in lines]
    return vital_signs([*samples, Sample("python_info", {"x": "y"}, 1.0)], ["files"], {REPLICA: "files"}, at_s)


def requests(outcome: str, count: float, backend: str = "files", method: str = "tools/call") -> tuple[str, dict[str, str], float]:
    labels = {"transport": "websocket", "method": method, "backend": backend, "outcome": outcome}
    return "requests_total", labels, count


def took(bound: str, count: float, method: str = "tools/call") -> tuple[str, dict[str, str], float]:
    return "request_duration_seconds_bucket", {"method": method, "backend": "files", "le": bound}, count


def test_an_exposition_is_read_per_backend_and_for_the_whole_node() -> None:
    found = signs(
        requests("ok", 3),
        requests("ok", 2, method="tools/list"),
        requests("upstream_failed", 1),
        requests("parse_error", 4, backend=""),
        took("0.1", 4),
        took("+Inf", 5),
        took("+Inf", 9, method="stream"),
        ("pool_connections", {"backend": "files", "replica": REPLICA, "state": "leased"}, 3),
        ("pool_connections", {"backend": "files", "replica": REPLICA, "state": "idle"}, 7),
        ("pool_connections", {"backend": "files", "replica": REPLICA, "state": "waiting"}, 1),
        ("pool_connections", {"backend": "gone", "replica": REPLICA, "state": "waiting"}, 1),
        ("pool_exhausted_total", {"backend": "files"}, 2),
        ("health_status", {"component": f"files/{REPLICA}"}, 0),
        ("health_status", {"component": "router"}, 2),
        ("circuit_state", {"route": "backend/files", "replica": REPLICA}, 2),
        ("restarts_total", {"child": "cell/0/router"}, 1),
        ("downstream_connections", {"transport": "websocket"}, 12),
        ("sessions", {"revision": "2025-11-25"}, 4),
        ("events_lost_total", {"transport": "http_sse"}, 1),
        ("event_loop_lag_seconds", {}, 0.3),
    )
    files = found.backends["files"]
    assert files.outcomes == {"ok": 5, "upstream_failed": 1}
    assert files.buckets == {0.1: 4, INFINITE: 5}
    assert (files.leased, files.idle, files.waiting, files.exhausted) == (3, 7, 1, 2)
    assert (files.replicas, files.open) == ({REPLICA: 0}, {REPLICA})
    assert found.outcomes == {"ok": 5, "upstream_failed": 1, "parse_error": 4}
    assert found.health == {f"files/{REPLICA}": 0, "router": 2}
    assert (found.restarts, found.connections, found.sessions) == ({"cell/0/router": 1}, {"websocket": 12}, {"2025-11-25": 4})
    assert (found.lost, found.loop_lag_s) == ({"http_sse": 1}, 0.3)


def test_a_flow_is_what_happened_between_two_moments() -> None:
    earlier = signs(requests("ok", 10), took("0.1", 10), took("1.0", 10), took("+Inf", 10))
    later = signs(requests("ok", 16), requests("upstream_timeout", 2), took("0.1", 10), took("1.0", 18), took("+Inf", 18))
    flow = backend_flow(earlier.backends["files"], later.backends["files"], 4.0)
    assert flow == BackendFlow(
        requests_per_s=2.0,
        requests=8,
        faults=2,
        fault_share=0.25,
        p50_s=pytest.approx(0.55),
        p95_s=pytest.approx(0.955),
        slow_s=pytest.approx(0.775),
        exhausted=0,
    )


def test_a_backend_that_served_nothing_has_no_latency_and_no_faults() -> None:
    same = signs(requests("ok", 10), took("+Inf", 10)).backends["files"]
    flow = backend_flow(same, same, 1.0)
    assert (flow.requests_per_s, flow.fault_share, flow.p50_s, flow.p95_s) == (0.0, 0.0, None, None)


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({1.0: 0, INFINITE: 0}, 0.5, None),
        ({1.0: 10, INFINITE: 10}, 0.5, 0.5),
        ({1.0: 0, 2.0: 10, INFINITE: 10}, 0.5, 1.5),
        ({1.0: 0, INFINITE: 10}, 0.5, 1.0),  # nothing is known above the last bound
    ],
)
def test_quantiles_are_those_of_prometheus(buckets: dict[float, float], share: float, expected: float | None) -> None:
    assert quantile(buckets, share) == expected


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=10), share=st.floats(0.01, 1.0))
def test_a_quantile_lies_within_the_bounds_and_rises_with_its_share(counts: list[int], share: float) -> None:
    total, buckets = 0, {}
    for number, count in enumerate(counts):
        total += count
        buckets[float(number + 1)] = float(total)
    found = quantile(buckets, share)
    if total == 0:
        assert found is None
    else:
        assert found is not None
        assert 0.0 <= found <= len(counts)
        higher = quantile(buckets, 1.0)
        assert higher is not None
        assert found <= higher + 1e-9
