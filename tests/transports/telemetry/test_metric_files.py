"""The files of metrics on a full disk: the process goes on, and what others have counted can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# The disk is full from the second allocation of a file of metrics on, or from the first; nothing real fills one on demand.
PROCESS = """
import errno, json, os, sys
real, left = os.posix_fallocate, [int(sys.argv[1])]

def allocate(fd, offset, length):
    left[0] -= 1
    if left[0] < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(fd, offset, length)

os.posix_fallocate = allocate
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.metric_reader import read_samples
for number in range(int(sys.argv[2])):
    metrics.restarts_total.labels(f"cell/{number}").inc()
    metrics.restarts_total.labels(f"cell/{number}").inc()
held = {metrics.restarts_total.labels(f"cell/{number}")._value.get() for number in range(int(sys.argv[2]))}
shown = [sample.value for sample in read_samples() if sample.name == "mcp_gateway_restarts_total"]
print(json.dumps([sorted(held), len(shown)]))
"""
MANY = 700
"""Series that do not fit into the first part of a file."""


def run(directory: Path, allocations: int, series: int) -> tuple[list[float], int, str]:
    """({what the process holds of each series}, series that are shown, what it said)."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(allocations), str(series)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    held, shown = json.loads(done.stdout)
    return held, shown, done.stderr


def test_every_page_of_a_file_has_its_place_on_the_disk(tmp_path: Path) -> None:
    assert run(tmp_path, 1_000, MANY) == ([2.0], MANY, "")
    (counters,) = tmp_path.glob("counter_*.db")
    stat = counters.stat()
    assert stat.st_blocks * 512 >= stat.st_size > 65_536
    others = [path.stat() for path in tmp_path.iterdir() if path != counters]
    assert {stat.st_size for stat in others} == {65_536}
    assert all(stat.st_blocks * 512 >= stat.st_size for stat in others)


def test_a_process_for_whose_files_there_is_no_room_counts_by_itself_and_others_are_read(tmp_path: Path) -> None:
    run(tmp_path, 1_000, 3)
    before = set(os.listdir(tmp_path))
    held, shown, said = run(tmp_path, 0, MANY)
    assert (held, shown) == ([2.0], 3)
    assert "cannot be written (No space left on device)" in said
    assert set(os.listdir(tmp_path)) == before, "no empty file is left, which nobody could read"


def test_a_process_whose_file_cannot_grow_goes_on_by_itself(tmp_path: Path) -> None:
    files = len([run(tmp_path, 1_000, 3), *tmp_path.iterdir()]) - 1
    held, shown, said = run(tmp_path, files, MANY)
    assert held == [2.0]
    assert 3 < shown < MANY
    assert said.count("No space left on device") == 1


TRUSTED = """
import errno, fcntl, os

def cannot(fd, offset, length):
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND, "glibc's own way does not work with such a file"
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

os.posix_fallocate = cannot
from mcp_gateway.transports.telemetry import metrics
from mcp_gateway.transports.telemetry.metric_reader import read_samples
for number in range(700):
    metrics.restarts_total.labels(f"cell/{number}").inc()
print(sum(sample.name == "mcp_gateway_restarts_total" for sample in read_samples()))
"""


def test_a_file_system_that_cannot_tell_is_trusted(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-c", TRUSTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout.strip(), done.stderr) == ("700", "")
