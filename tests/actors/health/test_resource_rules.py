"""When a cell is short of memory, processor or time on its event loop."""

from __future__ import annotations

import pytest

from mcp_gateway.actors.health.resource_meter import ResourceMeter
from mcp_gateway.actors.health.resource_rules import ResourceUse, resource_problems

WELL = {"memory_bytes": 50, "limit_bytes": 100, "available_bytes": 50, "total_bytes": 100, "cpu_share": 0.5, "lag_s": 0.0}


@pytest.mark.parametrize(
    ("change", "short"),
    [
        ({}, None),
        ({"memory_bytes": 85}, None),
        ({"memory_bytes": 86}, "memory"),
        ({"available_bytes": 3}, None),
        ({"available_bytes": 2}, "memory"),
        ({"cpu_share": 0.97}, None),
        ({"cpu_share": 0.98}, "cpu"),
        ({"lag_s": 1.0}, None),
        ({"lag_s": 1.1}, "event-loop"),
    ],
)
def test_each_resource_is_short_beyond_its_limit(change: dict[str, float], short: str | None) -> None:
    problems = resource_problems(ResourceUse(**{**WELL, **change}))  # type: ignore[arg-type]
    assert list(problems) == ["memory", "cpu", "event-loop"]
    assert [name for name, problem in problems.items() if problem] == ([] if short is None else [short])


def test_a_meter_reads_this_process() -> None:
    use = ResourceMeter().read(0.25)
    assert 0 < use.memory_bytes < use.limit_bytes <= use.total_bytes
    assert use.lag_s == 0.25
    assert 0 < use.available_bytes <= use.total_bytes
