"""The archive of metrics: sums stay, gauges go, and the number of files does not grow with the number of restarts."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_gateway.transports.telemetry.metric_archive import archive_all, archive_process

PROCESS = """
from mcp_gateway.transports.telemetry import metrics
import os
metrics.restarts_total.labels("cell/0").inc(2)
metrics.request_duration_seconds.labels("tools/call", "files").observe(0.3)
metrics.sessions.labels("2025-11-25").set(5)
metrics.health_status.labels("router").set(2)
print(os.getpid())
"""
READER = """
import json
import os
from mcp_gateway.transports.telemetry.metric_reader import read_samples
wanted = ("restarts_total", "request_duration_seconds_count", "request_duration_seconds_sum", "sessions", "health_status")
found = {sample.name.removeprefix("mcp_gateway_"): sample.value for sample in read_samples()}
print(json.dumps([os.getpid(), {name: found[name] for name in wanted if name in found}]))
"""


def run(program: str, directory: Path) -> str:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(directory), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


def read(directory: Path) -> dict[str, float]:
    pid, found = json.loads(run(READER, directory))
    archive_process(pid, directory)  # the reader is one more process of the node
    return dict(found)


@pytest.mark.parametrize("together", [False, True])
def test_what_ended_processes_have_counted_stays_in_one_file_and_their_gauges_go(together: bool, tmp_path: Path) -> None:
    for number in range(1, 4):
        pid = int(run(PROCESS, tmp_path))
        if number == 1:
            assert read(tmp_path) == {
                "restarts_total": 2,
                "request_duration_seconds_count": 1,
                "request_duration_seconds_sum": 0.3,
                "sessions": 5,
                "health_status": 2,
            }
        if not together:
            archive_process(pid, tmp_path)
            assert {path.name for path in tmp_path.iterdir()} == {"counter_0.db", "histogram_0.db"}
    if together:
        archive_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"counter_0.db", "histogram_0.db"}
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {1_048_576}, "they do not grow with what they do not hold"
    found = read(tmp_path)
    assert found == {
        "restarts_total": 6,
        "request_duration_seconds_count": 3,
        "request_duration_seconds_sum": pytest.approx(0.9),
    }


def test_a_process_that_counted_nothing_and_an_empty_directory_are_nothing_to_do(tmp_path: Path) -> None:
    archive_process(7, tmp_path)
    archive_all(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_room_for_the_archive_nothing_is_lost_and_nothing_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A limit of the size of files stands for a full disk."""
    pid = int(run(PROCESS, tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        archive_process(pid, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be archived: File too large" in caplog.text
    counted = {"restarts_total": 2, "request_duration_seconds_count": 1, "request_duration_seconds_sum": 0.3}
    assert read(tmp_path) == counted
    archive_all(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"counter_0.db", "histogram_0.db"}
    assert read(tmp_path) == counted
