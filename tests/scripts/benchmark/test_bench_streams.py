"""The benchmark of streams: what its table says, which promises it holds the gateway to, and a short run of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mcp_gateway.scripts.benchmark.bench_load import WrongAnswer
from mcp_gateway.scripts.benchmark.bench_streams import MIN_RATIO, WORKS, Row, broken_promises, not_held, table


def row(candidate: str, *cpu_us: float, work: str = "burst") -> Row:
    return Row(candidate=candidate, title=f"the {candidate}", work=work, cpu_us=list(cpu_us))


def test_the_table_has_one_row_for_each_measurement_and_pairs_its_rounds() -> None:
    rows = [row("proxy", 10, 20, 30), row("embedded", 20, 40, 600), row("embedded", 5, work="4 MB")]
    assert table(rows).splitlines()[2:] == [
        "| 100 events at once | the proxy | 20.0 | 10.0 to 30.0 | 1.00 |",
        "| 100 events at once | the embedded | 40.0 | 20.0 to 600.0 | 0.50 |",
        "| a result of 4 MB | the embedded | 5.0 | 5.0 to 5.0 | - |",
    ]


@pytest.mark.parametrize(("share", "is_broken"), [(1.0, False), (0.98, True)])
def test_a_promise_is_kept_at_its_bound_and_broken_below(share: float, is_broken: bool) -> None:
    rows = [row("proxy", 100.0), row("embedded", 100.0 / (MIN_RATIO["burst"] * share))]
    assert bool(broken_promises(rows)) is is_broken
    assert broken_promises(rows[1:]) == []


@pytest.mark.parametrize(
    ("work", "body", "is_right"),
    [
        ("burst", b"notifications/progress" * 100 + b'"isError":false}', True),
        ("burst", b"notifications/progress" * 99 + b'"isError":false}', False),
        ("1 MB", b"x" * 1_000_000 + b'"isError":false}', True),
        ("1 MB", b"x" * 900_000 + b'"isError":false}', False),
        ("1 MB", b"x" * 1_000_000, False),
    ],
)
def test_an_answer_that_is_not_whole_is_noticed(work: str, body: bytes, is_right: bool) -> None:
    if is_right:
        WORKS[work].check(body)
    else:
        with pytest.raises(WrongAnswer):
            WORKS[work].check(body)


def test_a_short_run_tells_what_it_has_measured() -> None:
    bench = [sys.executable, "-m", "mcp_gateway.scripts.benchmark.bench_streams", "--rounds", "1", "--scale", "0.01"]
    command = [*bench, "--works", "burst,4 MB", "--only", "proxy,embedded"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines() if " us " not in line][-4:] == [
        "| 100 events at once",
        "| 100 events at once",
        "| a result of 4 MB",
        "| a result of 4 MB",
    ]


def test_what_shall_be_reached_and_is_not_is_told() -> None:
    rows = [row("proxy", 100.0, work="4 MB"), row("embedded", 133.0, work="4 MB"), row("embedded-2", 133.0, work="4 MB")]
    assert not_held(rows) == ["the embedded, a result of 4 MB: 0.75 of the proxy, 0.8 aimed at"]
