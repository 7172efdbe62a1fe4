"""What `top` shows: of two looks at the metrics what happened between them, beside what the gateway judges itself. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from prometheus_client.parser import text_string_to_metric_families

_MOST_ROWS: Final = 20
_CALLS: Final = "mcp_gateway_tool_calls_total"
_REQUESTS: Final = "mcp_gateway_requests_total"
_DURATION: Final = "mcp_gateway_request_duration_seconds"

Key = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a sample and its labels in order."""


@attrs.frozen
class Look:
    """at_s: on the monotonic clock."""

    at_s: float
    samples: Mapping[Key, float]

    @classmethod
    def of(cls, exposition: str, at_s: float) -> Look:
        """Raises: ValueError where this is no exposition of Prometheus."""
        return cls(
            at_s,
            {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in text_string_to_metric_families(exposition)
                for sample in family.samples
            },
        )

    def since(self, before: Look, name: str) -> Iterable[tuple[dict[str, str], float]]:
        """(labels, how much more there is), where there is more; a process that was started again begins anew."""
        for key, value in self.samples.items():
            if key[0] == name:
                more = value - before.samples.get(key, 0.0)
                if more > 0:
                    yield dict(key[1]), more


@attrs.define
class _Counted:
    calls: float = 0.0
    errors: float = 0.0
    seconds: float = 0.0

    def shown(self, interval_s: float, **names: str) -> dict[str, Any]:
        return {
            **names,
            "calls_per_second": round(self.calls / interval_s, 3),
            "error_share": round(self.errors / self.calls, 4) if self.calls else 0.0,
        }


def view(before: Look, now: Look, state: Mapping[str, Any], clients: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """{"interval_seconds", "requests_per_second", "error_share", "mean_seconds", "status", "aches", "backends", "tools",
    "methods", "clients"}, the busiest first.

    state:   what the dashboard reads. clients: rows of `sessions`; None where nobody could be asked.
    """
    interval_s = max(now.at_s - before.at_s, 0.001)
    requests, methods = _Counted(), dict[str, _Counted]()
    for labels, count in now.since(before, _REQUESTS):
        for counted in (requests, methods.setdefault(labels["method"], _Counted())):
            counted.calls += count
            counted.errors += count if labels["outcome"] not in ("ok", "client_gone") else 0.0
    for labels, seconds in now.since(before, f"{_DURATION}_sum"):
        for counted in (requests, methods.setdefault(labels["method"], _Counted())):
            counted.seconds += seconds
    tools: dict[tuple[str, str], _Counted] = {}
    for labels, count in now.since(before, _CALLS):
        counted = tools.setdefault((labels["backend"], labels["tool"]), _Counted())
        counted.calls += count
        counted.errors += count if labels["outcome"] not in ("ok", "client_gone") else 0.0
    viability = state.get("viability") or {}
    total = requests.shown(interval_s)
    return {
        "interval_seconds": round(interval_s, 3),
        "requests_per_second": total["calls_per_second"],
        "error_share": total["error_share"],
        "mean_seconds": _mean(requests),
        "status": viability.get("status", "unknown"),
        "aches": list(viability.get("aches", ())),
        "backends": _backends(viability.get("backends", {}), state.get("node", {}).get("backends", ())),
        "tools": _busiest(each.shown(interval_s, backend=backend, tool=tool) for (backend, tool), each in tools.items()),
        "methods": _busiest(
            {**each.shown(interval_s, method=method), "mean_seconds": _mean(each)}
            for method, each in methods.items()
            if each.calls
        ),
        **({} if clients is None else {"clients": _clients(clients)}),
    }


def _mean(counted: _Counted) -> float | None:
    return round(counted.seconds / counted.calls, 6) if counted.calls else None


def _busiest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["calls_per_second"])[:_MOST_ROWS]


def _backends(judged: Mapping[str, Mapping[str, Any]], known: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of every backend what the gateway has measured in the last seconds, and how its replicas are."""
    rows = []
    for backend in known:
        measured = judged.get(backend["name"], {})
        replicas = backend.get("replicas", ())
        rows.append(
            {
                "backend": backend["name"],
                "calls_per_second": round(measured.get("requests_per_s") or 0.0, 3),
                "error_share": round(measured.get("fault_share") or 0.0, 4),
                "p50_seconds": measured.get("p50_s"),
                "p95_seconds": measured.get("p95_s"),
                "pool_use": round(measured.get("pool_use") or 0.0, 4),
                "healthy": sum(1 for replica in replicas if replica.get("health") == "healthy"),
                "replicas": len(replicas),
            }
        )
    return sorted(rows, key=lambda row: -row["calls_per_second"])[:_MOST_ROWS]


def _clients(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Who has most open, by program and person."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        who = (row["client"] or "unnamed", row["principal"] or row["address"])
        shown = found.setdefault(who, {"client": who[0], "who": who[1], "sessions": 0, "calls": 0, "streams": 0})
        shown["sessions"] += 1 if row["session"] else 0
        shown["calls"] += row["calls"]
        shown["streams"] += row["streams"]
    return sorted(found.values(), key=lambda row: (-row["calls"], -row["streams"], -row["sessions"]))[:_MOST_ROWS]


Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""(columns, rows)."""


def tables(seen: Mapping[str, Any]) -> list[Table]:
    """What is shown of a view; tables without rows are left out."""
    backends: list[tuple[str, ...]] = [
        (
            row["backend"],
            _rate(row["calls_per_second"]),
            _share(row["error_share"]),
            _time(row["p50_seconds"]),
            _time(row["p95_seconds"]),
            _share(row["pool_use"]),
            f"{row['healthy']}/{row['replicas']}",
        )
        for row in seen["backends"]
    ]
    tools: list[tuple[str, ...]] = [
        (row["tool"], row["backend"], _rate(row["calls_per_second"]), _share(row["error_share"])) for row in seen["tools"]
    ]
    methods: list[tuple[str, ...]] = [
        (row["method"], _rate(row["calls_per_second"]), _share(row["error_share"]), _time(row["mean_seconds"]))
        for row in seen["methods"]
    ]
    clients: list[tuple[str, ...]] = [
        (row["client"], row["who"] or "-", str(row["sessions"]), str(row["calls"]), str(row["streams"]))
        for row in seen.get("clients", ())
    ]
    found: list[Table] = [
        (("BACKEND", "CALLS/S", "ERRORS", "P50", "P95", "POOL", "WELL"), backends),
        (("TOOL", "BACKEND", "CALLS/S", "ERRORS"), tools),
        (("METHOD", "CALLS/S", "ERRORS", "MEAN"), methods),
        (("CLIENT", "WHO", "SESSIONS", "CALLS NOW", "STREAMS"), clients),
    ]
    return [table for table in found if table[1]]


def head_lines(seen: Mapping[str, Any]) -> list[str]:
    """The whole in a line, then what hurts."""
    head = (
        f"{seen['status']}   {_rate(seen['requests_per_second'])} requests/s   {_share(seen['error_share'])} errors"
        f"   mean {_time(seen['mean_seconds'])}"
    )
    return [head, *(f"hurts: {ache.get('source')}: {ache.get('reason')}" for ache in seen["aches"])]


def _rate(value: float) -> str:
    return f"{value:.1f}"


def _share(value: float) -> str:
    return f"{value:.1%}" if value else "0%"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f}ms" if seconds < 1 else f"{seconds:.2f}s"
