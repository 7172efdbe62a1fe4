"""How well a node is as a member of its cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .health_rules import Status

LONGEST_SILENCE_S: Final = 10.0
"""Of the member process, which tells of itself every second."""

MOST_EVENTS_BEHIND: Final = 1_000
"""More than come between two looks at where the log is."""


def judge_cluster(status: Mapping[str, Any], silent_s: float) -> tuple[Status, str]:
    """(status, why). Never unhealthy: a node that is cut off serves all that does not live on another one.

    status: as `ClusterDescribed` has it, empty before the first; silent_s: since it came.
    """
    if silent_s > LONGEST_SILENCE_S:
        return Status.DEGRADED, f"the member process has said nothing for {silent_s:.0f} s"
    if not status:
        return Status.HEALTHY, ""
    reasons = []
    if status["engine"] != "connected":
        reasons.append("the engine is away")
    if not status["is_member"]:
        reasons.append("this node is no member: what lives on other nodes cannot be reached")
    if status["lag_events"] > MOST_EVENTS_BEHIND:
        reasons.append(f"{status['lag_events']} events of the cluster's log are missing here")
    return (Status.DEGRADED, "; ".join(reasons)) if reasons else (Status.HEALTHY, "")


def cluster_facts(status: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside the verdict."""
    named = ("node", "epoch", "engine", "revision", "lag_events", "lease_age_seconds")
    return {name: status[name] for name in named} | {"nodes": len(status["nodes"])} if status else {}
