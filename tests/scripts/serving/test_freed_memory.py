"""Memory that has been freed, seen from outside: how often the system must give pages again."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import ctypes, resource
from mcp_gateway.scripts.serving.freed_memory import KEPT_BYTES, keep_freed_memory
if {keeps}:
    keep_freed_memory()
def turn():
    return [bytes(b"x" * 4_000_000) for _ in range(3)]
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*, keeps: bool) -> int:
    program = [sys.executable, "-c", _PROGRAM.format(keeps=keeps)]
    return int(subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_large_messages_one_after_the_other_use_the_same_memory() -> None:
    assert _faults(keeps=True) * 10 < _faults(keeps=False)
