"""The same seed gives the same faults, each in its turn, within the time that there is."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mcp_gateway.scripts.chaos_harness.fault_kinds import FAULTS, KINDS
from mcp_gateway.scripts.chaos_harness.schedule import Planned, plan


def planned(seed: int, seconds: float = 60.0, each_s: float = 2.0, cells: int = 2) -> list[Planned]:
    return plan(random.Random(seed), seconds, FAULTS, cells, each_s=each_s, warm_up_s=3.0, rest_s=6.0)


@given(st.integers(), st.floats(1, 600), st.floats(0.5, 20), st.integers(1, 8))
def test_a_plan_keeps_to_its_time_and_to_what_its_kinds_allow(seed: int, seconds: float, each_s: float, cells: int) -> None:
    faults = planned(seed, seconds, each_s, cells)
    assert faults == planned(seed, seconds, each_s, cells)
    assert [each.fault_id for each in faults] == list(range(1, len(faults) + 1))
    for each in faults:
        assert 3.0 <= each.at_s < max(3.0, seconds - 6.0) + 0.001
        least_s, most_s = each.kind.lasts_s
        assert least_s - 0.001 <= each.lasts_s <= most_s + 0.001
        assert "*" not in each.target
        if each.target.startswith("cell/"):
            assert 0 <= int(each.target.split("/")[1]) < cells
    for turn in range(0, len(faults), len(FAULTS)):
        kinds = [each.kind.name for each in faults[turn : turn + len(FAULTS)]]
        assert len(set(kinds)) == len(kinds)  # each has its turn before any comes again


def test_another_seed_gives_other_faults() -> None:
    assert [each.kind.name for each in planned(1)] != [each.kind.name for each in planned(2)]


def test_without_kinds_nothing_is_planned() -> None:
    assert plan(random.Random(1), 60, (), 2, each_s=1, warm_up_s=0, rest_s=0) == []
    assert len(KINDS) == len(FAULTS)
