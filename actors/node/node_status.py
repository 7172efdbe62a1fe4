"""Puts together what the processes of a node say about themselves. Pure; the shape is that of `status --json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# From best to worst: what a node says of a replica is the worst that one of its cells says.
_HEALTH_ORDER = ("healthy", "degraded", "unhealthy")
_CIRCUIT_ORDER = ("closed", "half_open", "open")


def tree_row(
    name: str,
    *,
    pid: int | None,
    uptime_s: float,
    incarnation: int = 1,
    restarts: int = 0,
    children: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """One row of the supervision tree."""
    return {
        "name": name,
        "pid": pid,
        "incarnation": incarnation,
        "uptime_seconds": round(uptime_s, 3),
        "restarts": restarts,
        "children": list(children),
    }


def merge_cell_statuses(statuses: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """{"backends", "servers", "grpc_port", "left_out", "sessions", "connections", "viability"} of the node: counts are added, a
    replica is as bad as the worst cell sees it, viability is what the one cell says that judges it, if any does, and all have the
    same servers and the same port of gRPC.
    """
    sessions = grpc_port = 0
    viability: Mapping[str, Any] = {}
    left_out: list[Mapping[str, Any]] = []
    servers: list[Mapping[str, Any]] = []
    connections: dict[str, int] = {}
    backends: dict[str, dict[str, Any]] = {}
    for status in statuses:
        sessions += status.get("sessions", 0)
        viability = viability or status.get("viability", {})
        left_out = left_out or status.get("left_out", [])
        servers = servers or status.get("servers", [])
        grpc_port = grpc_port or status.get("grpc_port", 0)
        _add_counts(connections, status.get("connections", {}))
        for backend in status.get("backends", ()):
            known = backends.setdefault(backend["name"], {**backend, "replicas": []})
            replicas = {replica["address"]: replica for replica in known["replicas"]}
            for replica in backend.get("replicas", ()):
                if (same := replicas.get(replica["address"])) is None:
                    known["replicas"].append({**replica, "pool": dict(replica.get("pool", {}))})
                    continue
                _add_counts(same["pool"], replica.get("pool", {}))
                for key, order in (("health", _HEALTH_ORDER), ("circuit", _CIRCUIT_ORDER)):
                    same[key] = _worse(same.get(key), replica.get(key), order)
    return {
        "backends": list(backends.values()),
        "sessions": sessions,
        "connections": connections,
        **({"servers": servers} if servers else {}),
        **({"grpc_port": grpc_port} if grpc_port else {}),
        **({"left_out": left_out} if left_out else {}),
        **({"viability": dict(viability)} if viability else {}),
    }


def with_lag(cluster: Mapping[str, Any], last_event_ids: Iterable[int]) -> dict[str, Any]:
    """What the member says, with "lag_events": how many of the cluster's log the one of these that is the farthest behind has
    not got yet; 0 where nobody knows.
    """
    last = min(last_event_ids, default=0)
    return {**cluster, "lag_events": max(cluster["last_event_id"] - last, 0) if last else 0}


def _worse(one: Any, other: Any, order: Sequence[str]) -> Any:
    """The value that comes later in the order; one that is not in it says nothing."""
    ranks = [order.index(value) if value in order else -1 for value in (one, other)]
    return other if ranks[1] > ranks[0] else one


def _add_counts(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
