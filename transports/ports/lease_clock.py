"""The clock of leases: the same for all processes of a machine, and it goes on while the machine sleeps."""

from __future__ import annotations

import time


def lease_clock_s() -> float:
    """Seconds since the machine was started.

    The clock of event loops stands still while a machine, or the virtual machine, is suspended: a lease that is measured by it
    would seem to hold when it wakes up, after others have taken over.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
