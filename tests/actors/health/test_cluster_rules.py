"""How well a node is as a member of its cluster."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_gateway.actors.health.cluster_rules import LONGEST_SILENCE_S, MOST_EVENTS_BEHIND, cluster_facts, judge_cluster
from mcp_gateway.actors.health.health_rules import Status

WELL: dict[str, Any] = {
    "node": "a",
    "epoch": 3,
    "is_member": True,
    "engine": "connected",
    "revision": 41,
    "lag_events": 0,
    "lease_age_seconds": 1.2,
    "nodes": [{}, {}],
    "owned": [],
}


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({}, Status.HEALTHY, ""),
        ({"lag_events": MOST_EVENTS_BEHIND}, Status.HEALTHY, ""),
        ({"lag_events": MOST_EVENTS_BEHIND + 1}, Status.DEGRADED, "1001 events of the cluster's log are missing here"),
        ({"engine": "away"}, Status.DEGRADED, "the engine is away"),
        (
            {"engine": "away", "is_member": False},
            Status.DEGRADED,
            "the engine is away; this node is no member: what lives on other nodes cannot be reached",
        ),
    ],
)
def test_what_is_wrong_is_said_and_a_node_that_is_cut_off_still_serves(
    changes: dict[str, Any], status: Status, reason: str
) -> None:
    assert judge_cluster({**WELL, **changes}, 0.0) == (status, reason)


def test_a_member_process_that_says_nothing_is_missed_past_its_time_and_not_at_it() -> None:
    for said in ({}, WELL):
        assert judge_cluster(said, LONGEST_SILENCE_S)[0] is Status.HEALTHY
        status, reason = judge_cluster(said, LONGEST_SILENCE_S + 1)
        assert (status, reason) == (Status.DEGRADED, "the member process has said nothing for 11 s")


def test_facts_stand_beside_the_verdict_as_soon_as_there_are_any() -> None:
    assert cluster_facts({}) == {}
    assert cluster_facts(WELL) == {
        "node": "a",
        "epoch": 3,
        "engine": "connected",
        "revision": 41,
        "lag_events": 0,
        "lease_age_seconds": 1.2,
        "nodes": 2,
    }
