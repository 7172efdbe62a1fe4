"""The status of a gateway as tables for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_gateway.config.shown_text import shown
from mcp_gateway.transports.downstream.operators.addresses import address_lines, addresses_to_copy

_TREE_COLUMNS = ("NAME", "PID", "INCARNATION", "RESTARTS", "UP")
_NODE_COLUMNS = ("NODE", "EPOCH", "CELLS", "STATE", "VERSION", "URL")
_BACKEND_COLUMNS = ("BACKEND", "STATE", "PROTOCOL", "REPLICA", "HEALTH", "CIRCUIT", "POOL", "RING SHARE")


def status_lines(status: Mapping[str, Any]) -> list[str]:
    """Show what `status --json` gives: the tree, the backends, the counts."""
    connections = ", ".join(f"{transport} {count}" for transport, count in sorted(status["connections"].items())) or "none"
    return [
        f"mcp-gateway {status['version']}, up {duration_text(status['uptime_seconds'])}",
        "",
        *table_lines(_TREE_COLUMNS, _tree_rows(status["tree"])),
        "",
        *backend_lines(status["backends"]),
        *left_out_lines(status.get("left_out", ())),
        *address_lines_of(status),
        *cluster_lines(status.get("cluster", {})),
        "",
        f"sessions: {status['sessions']}   connections: {connections}",
        *viability_lines(status.get("viability", {})),
    ]


def viability_lines(viability: Mapping[str, Any]) -> list[str]:
    """Show how well the node is in one line, and one for each thing that hurts; nothing where nobody has judged it yet."""
    if not viability:
        return []
    aches = [f"  {ache['source']}: {ache['reason']}" for ache in viability["aches"]]
    return [f"viability: {viability['status']}   pain: {viability['pain']:.2f}", *aches]


def cluster_lines(cluster: Mapping[str, Any]) -> list[str]:
    """Show the nodes of the cluster as this one sees them; nothing for a node that is alone."""
    if not cluster:
        return []
    has_leases = all("lease_age_seconds" in node for node in cluster["nodes"])
    rows = [
        (
            f"{node['name']} (this one)" if node["name"] == cluster["node"] else node["name"],
            str(node["epoch"]),
            str(node["cells"]),
            "draining" if node["draining"] else "serving",
            *([f"{duration_text(node['lease_age_seconds'])} ago"] if has_leases else []),
            node["version"],
            node["url"],
        )
        for node in cluster["nodes"]
    ]
    columns = [*_NODE_COLUMNS]
    if has_leases:
        columns.insert(4, "RENEWED")
    engine = f"engine: {cluster['engine']}"
    if "revision" in cluster:
        engine += f", revision {cluster['revision']}, {cluster['lag_events']} events behind"
    if not cluster["is_member"]:
        engine += ", cut off: what lives on other nodes cannot be reached"
    owned = [f"{row['thing']} runs once, on {row['node']} (fencing token {row['token']})" for row in cluster.get("owned", ())]
    return ["", *table_lines(columns, rows), engine, *map(shown, owned)]


def left_out_lines(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Show one line for each server of a file that is not served, with the reason."""
    return ["", *(f"left out: {server['title']}: {server['reason']}" for server in servers)] if servers else []


def address_lines_of(status: Mapping[str, Any]) -> list[str]:
    """Show the addresses to copy, where the gateway's own is known."""
    if "url" not in status:
        return []
    served = (*status["backends"], *status.get("servers", ()))
    names = ((str(each["name"]), str(each.get("title", ""))) for each in served)
    return ["", "addresses:", *address_lines(addresses_to_copy(status["url"], names, status.get("grpc_port", 0)))]


def backend_lines(backends: Sequence[Mapping[str, Any]]) -> list[str]:
    """Show one row per replica; a backend without replicas keeps a row of its own.

    The names that their files have for them stand at the end, where any has another there.
    """
    rows = []
    has_titles = any(backend.get("title", backend["name"]) != backend["name"] for backend in backends)
    for backend in backends:
        draining = backend.get("draining_replicas", ())
        for replica in backend.get("replicas") or [{}]:
            share = replica.get("ring_share")
            rows.append(
                (
                    str(backend["name"]),
                    "draining" if backend.get("draining") or replica.get("address") in draining else "serving",
                    str(backend.get("protocol", "-")),
                    str(replica.get("address", "-")),
                    str(replica.get("health", "-")),
                    str(replica.get("circuit", "-")),
                    " ".join(f"{state}={count}" for state, count in replica.get("pool", {}).items()) or "-",
                    "-" if share is None else f"{share:.1%}",
                    *([str(backend.get("title", backend["name"]))] if has_titles else []),
                )
            )
    columns = (*_BACKEND_COLUMNS, "WRITTEN AS") if has_titles else _BACKEND_COLUMNS
    return table_lines(columns, rows) if rows else ["no backends"]


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the columns; no line ends in spaces."""
    rows = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows)]


def duration_text(seconds: float) -> str:
    """Show 3725.2 as "1h 2m"; below a minute with one decimal."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, hours = int(seconds) // 60 % 60, int(seconds) // 3600
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {int(seconds) % 60}s"


def _tree_rows(rows: Sequence[Mapping[str, Any]], indent: str | None = None) -> list[tuple[str, ...]]:
    """One row per process and actor, in depth-first order; indent is None for those at the top, which hang on nothing."""
    found: list[tuple[str, ...]] = []
    for index, row in enumerate(rows):
        is_last = index == len(rows) - 1
        branch, below = ("", "") if indent is None else ("└─ ", f"{indent}   ") if is_last else ("├─ ", f"{indent}│  ")
        uptime = row.get("uptime_seconds")
        found.append(
            (
                (indent or "") + branch + str(row["name"]),
                "" if row.get("pid") is None else str(row["pid"]),
                str(row.get("incarnation", "")),
                str(row.get("restarts", "")),
                "" if uptime is None else duration_text(uptime),
            )
        )
        found += _tree_rows(row.get("children", ()), below)
    return found
