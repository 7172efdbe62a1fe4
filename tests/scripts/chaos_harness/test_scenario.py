"""A scenario is the file with the options over it; what is wrong with either is said."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from mcp_gateway.scripts.chaos_harness.chaos_run import REST_S, WARM_UP_S
from mcp_gateway.scripts.chaos_harness.fault_kinds import CLUSTER, EMBEDDED, FAULTS, NODE, SOCKETS
from mcp_gateway.scripts.chaos_harness.scenario import CLUSTER_EACH_S, Scenario, ScenarioInvalid, read_scenario
from mcp_gateway.scripts.chaos_harness.schedule import plan

SHIPPED = Path(__file__).parents[3] / "scripts" / "chaos_harness"
KILLS_EVERY_PROCESS, REPLACES_EVERY_CELL = SHIPPED / "processes.toml", SHIPPED / "replaced.toml"


def test_options_go_over_the_file_and_both_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('seed = 7\nseconds = 10\nfaults = ["kill cell", "slow loris"]\n')
    found = read_scenario(file, {"seed": 9, "seconds": None})
    assert found == Scenario(seed=9, seconds=10, faults=("kill cell", "slow loris"))
    assert read_scenario(None, {}) == Scenario()
    file.write_text('[recovers_s]\n"kill cell" = 1\n')
    assert read_scenario(file, {}) == Scenario(recovers_s={"kill cell": 1})


def test_the_scenario_that_is_shipped_of_deaths_kills_every_process_of_a_node_twenty_times() -> None:
    """And the gateway does not give itself up meanwhile: its system may die five times a minute."""
    scenario = read_scenario(KILLS_EVERY_PROCESS, {})
    kinds = scenario.kinds(is_root=False, has_namespaces=False)
    targets = {target for kind in kinds for target in kind.targets}
    assert targets == {"cell/*", "event-log", "node-supervisor", "admin"}
    faults = plan(
        random.Random(scenario.seed),
        scenario.seconds,
        kinds,
        scenario.cells,
        each_s=scenario.each_s,
        warm_up_s=WARM_UP_S,
        rest_s=REST_S,
    )
    assert min(Counter(fault.kind.name for fault in faults).values()) == 20
    deaths_s = [fault.at_s for fault in faults if fault.target in ("node-supervisor", "admin")]
    assert all(later_s - first_s > 61 for first_s, later_s in zip(deaths_s, deaths_s[5:], strict=False))


def test_the_scenario_that_is_shipped_of_what_operators_do_may_be_felt_by_nobody() -> None:
    """But for sockets, which end with their cells, as clients are told."""
    kinds = read_scenario(REPLACES_EVERY_CELL, {}).kinds(is_root=False, has_namespaces=False)
    assert {kind.name for kind in kinds} == {"rolling restart", "upgrade", "reload"}
    assert {kind.hurts for kind in kinds} == {""}
    assert {end for kind in kinds for end in kind.ends} == {SOCKETS}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("speed = 1", "speed: unknown"),
        ("seconds = 0", "seconds: found 0; allowed: more than 0"),
        ("seconds = true", "seconds: found True"),
        ('seed = "x"', "seed: found 'x'"),
        ('faults = "kill cell"', "faults: found"),
        ('faults = ["earthquake"]', "there is no earthquake"),
        ('form = "cloud"', "form: found 'cloud'"),
        ("recovers_s = 1", "recovers_s: found 1; allowed: a table"),
        ("recovers_s = {earthquake = 1}", "recovers_s: there is no earthquake"),
        ('recovers_s = {"kill cell" = "soon"}', "recovers_s.kill cell: found 'soon'"),
        ('recovers_s = {"kill cell" = 0}', "recovers_s.kill cell: found 0; allowed: more than 0"),
        ("= 1", "s.toml"),
    ],
)
def test_what_is_wrong_is_said(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ScenarioInvalid) as refused:
        read_scenario(file, {})
    assert says in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioInvalid, match=r"missing\.toml"):
        read_scenario(tmp_path / "missing.toml", {})


def test_only_faults_that_can_be_brought_about_here_are_planned() -> None:
    everything = Scenario(form=NODE).kinds(is_root=True, has_namespaces=True)
    assert {kind.name for kind in FAULTS if NODE in kind.forms} == {kind.name for kind in everything}
    for is_root, has_namespaces in ((False, True), (True, False)):
        assert not any(kind.needs_root for kind in Scenario(form=NODE).kinds(is_root=is_root, has_namespaces=has_namespaces))
    embedded = Scenario(form=EMBEDDED, faults=("kill cell", "kill gateway")).kinds(is_root=False, has_namespaces=False)
    assert [kind.name for kind in embedded] == ["kill gateway"]


def test_a_cluster_has_faults_of_its_own_and_none_of_a_single_node() -> None:
    assert read_scenario(None, {"form": CLUSTER}).each_s == CLUSTER_EACH_S
    kinds = Scenario(form=CLUSTER).kinds(is_root=True, has_namespaces=True)
    assert {kind.name for kind in kinds} == {
        *("kill node", "stop node", "cut off node", "slow links", "kill nats", "kill most nats"),
    }
