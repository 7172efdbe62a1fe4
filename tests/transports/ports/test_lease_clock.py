"""The clock by which leases are kept."""

from __future__ import annotations

import subprocess
import sys
import time

from mcp_gateway.transports.ports.lease_clock import lease_clock_s


def test_all_processes_of_a_machine_have_the_same_time_and_it_only_rises() -> None:
    before_s = lease_clock_s()
    program = "from mcp_gateway.transports.ports.lease_clock import lease_clock_s; print(lease_clock_s())"
    there_s = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert before_s < there_s < lease_clock_s()


def test_it_counts_what_a_machine_has_slept_through() -> None:
    """Source: clock_gettime(2), CLOCK_BOOTTIME: as CLOCK_MONOTONIC, and includes any time that the system is suspended."""
    awake_s = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert lease_clock_s() >= awake_s
