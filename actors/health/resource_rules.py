"""When memory, processor and event loop of a cell are short. Pure; the limits are ours."""

from __future__ import annotations

import attrs

MEMORY_SHARE = 0.85
"""Of what this process may use: above, the next burst may end it."""

AVAILABLE_SHARE = 0.03
"""Of the machine's memory that must be left for all."""

CPU_SHARE = 0.97
"""Of one core: an event loop cannot use more than that."""

LAG_S = 1.0
"""How late a timer of the event loop may be: every client waits for that long as well."""


@attrs.frozen(kw_only=True)
class ResourceUse:
    """What a cell uses. limit_bytes: what it may use at most, of the machine or of its control group.

    available_bytes, total_bytes: of the machine. cpu_share, lag_s: since the last look; of one core, and the worst.
    """

    memory_bytes: int
    limit_bytes: int
    available_bytes: int
    total_bytes: int
    cpu_share: float
    lag_s: float


def resource_problems(use: ResourceUse) -> dict[str, str]:
    """{component: why it is short, or ""}."""
    memory = ""
    if use.memory_bytes > use.limit_bytes * MEMORY_SHARE:
        memory = f"{_mebibytes(use.memory_bytes)} of {_mebibytes(use.limit_bytes)} are in use"
    elif use.available_bytes < use.total_bytes * AVAILABLE_SHARE:
        memory = f"only {_mebibytes(use.available_bytes)} are left on this machine"
    cpu = f"{use.cpu_share:.0%} of a core are in use" if use.cpu_share > CPU_SHARE else ""
    lag = f"timers are up to {use.lag_s:.1f} s late" if use.lag_s > LAG_S else ""
    return {"memory": memory, "cpu": cpu, "event-loop": lag}


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
