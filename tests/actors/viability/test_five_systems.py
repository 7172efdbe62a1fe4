"""The five systems as values: what each takes in and lets out, and how pain finds the system that it is in."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.viability.algedonic import Ache
from mcp_gateway.actors.viability.five_systems import Policy, SystemState, assess, status_of
from mcp_gateway.actors.viability.sensations import Measurement, Sensations
from mcp_gateway.actors.viability.vital_signs import BackendVitals, VitalSigns

POLICY = Policy(backends=1, routes=0, limits_clients=False, cells=1)
ONE = "http://127.0.0.1:3001/mcp"


def measured(**outcomes: float) -> Measurement:
    """Ten seconds in which requests ended like this."""
    node = Sensations()
    vitals = BackendVitals(replicas={ONE: 2.0}, leased=3, idle=7)
    node.measure(VitalSigns(at_s=0.0, backends={"files": vitals}), {})
    return node.measure(VitalSigns(at_s=10.0, backends={"files": vitals}, outcomes=dict(outcomes)), {})


def systems(measurement: Measurement, *aches: Ache) -> dict[str, SystemState]:
    found = assess(measurement, aches, POLICY, probes_per_s=1.0, verdicts=0)
    assert [system.key for system in found] == ["S1", "S2", "S3", "S3*", "S4", "S5"]
    return {system.key: system for system in found}


def test_each_system_passes_on_what_it_has_not_absorbed() -> None:
    found = systems(measured(ok=60, upstream_failed=10, pool_exhausted=10, circuit_open=10, too_large=10))
    flows = {key: (system.variety_in_per_s, system.variety_out_per_s) for key, system in found.items()}
    assert flows["S5"] == (10.0, 9.0)  # too_large
    assert flows["S2"] == (9.0, 8.0)  # circuit_open
    assert flows["S3"] == (8.0, 7.0)  # pool_exhausted
    assert flows["S1"] == (7.0, 6.0)  # upstream_failed
    assert found["S1"].attenuation == pytest.approx(1 / 7)


def test_a_node_without_traffic_attenuates_nothing() -> None:
    found = systems(measured())
    assert [found[key].attenuation for key in ("S1", "S2", "S3", "S5")] == [0.0] * 4
    assert {system.status for system in found.values()} == {"viable"}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("errors/files", "S1"),
        ("latency/files", "S1"),
        ("backpressure/http_sse", "S2"),
        ("saturation/files", "S3"),
        ("restarts", "S3"),
        ("viability", "S5"),
    ],
)
def test_pain_is_in_the_system_whose_work_it_is(source: str, key: str) -> None:
    ache = Ache(source=source, level=0.5, felt=0.5, text="it hurts", since_s=0.0, is_emergency=False)
    found = systems(measured(), ache)
    assert {name: system.status for name, system in found.items() if system.status != "viable"} == {key: "strained"}
    assert found[key].ache == f"{source}: it hurts"


@pytest.mark.parametrize(
    ("pain", "status"), [(0.0, "viable"), (0.24, "viable"), (0.25, "strained"), (0.6, "failing"), (1.0, "failing")]
)
def test_status_follows_pain(pain: float, status: str) -> None:
    assert status_of(pain) == status
    assert status_of(pain, is_emergency=True) == "failing"
