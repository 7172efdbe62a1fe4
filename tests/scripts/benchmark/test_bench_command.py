"""The options of the commands of `bench`, and how one ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_gateway.scripts.benchmark import bench_fan_out, bench_run, bench_scale, bench_streams
from mcp_gateway.scripts.benchmark.bench_candidates import CandidateFailed
from mcp_gateway.scripts.benchmark.bench_command import measured, verdict


@pytest.mark.parametrize("command", [bench_fan_out, bench_run, bench_scale, bench_streams])
def test_an_unknown_name_ends_a_command_before_anything_is_measured(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command.parse(["--only", "nobody"])
    assert ended.value.code == 2
    assert "unknown: nobody; there are " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (bench_fan_out, "clients"),
        (bench_run, "connections"),
        (bench_run, "seconds"),
        (bench_scale, "scale"),
        (bench_streams, "rounds"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "nan", "many"])
def test_only_positive_numbers_are_taken(command, option, value, capsys):
    with pytest.raises(SystemExit) as ended:
        command.parse([f"--{option}={value}"])
    assert ended.value.code == 2
    assert f"argument --{option}: " in capsys.readouterr().err


def test_without_options_everything_is_measured():
    assert bench_run.parse([]).connections == [1, 32, 128]
    assert bench_scale.parse([]).only == [*bench_scale.GROWTHS]
    assert bench_streams.parse(["--works", "burst,1 MB"]).works == ["burst", "1 MB"]


def test_a_failure_is_told_and_leaves_no_folder(capsys):
    folders: list[Path] = []

    def measure(scratch: Path) -> None:
        assert scratch.is_dir()
        folders.append(scratch)
        raise CandidateFailed("the proxy did not answer")

    with pytest.raises(SystemExit) as ended:
        measured(measure)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "bench: the proxy did not answer\n"
    assert not folders[0].exists()


@pytest.mark.parametrize(("broken", "is_checked", "exit_code"), [((), True, 0), (("slow",), False, 0), (("slow",), True, 1)])
def test_a_broken_promise_is_always_told_and_fails_where_it_is_checked(broken, is_checked, exit_code, capsys):
    assert verdict(iter(broken), ["2.0 of the proxy"], is_checked=is_checked) == exit_code
    told = capsys.readouterr().err
    assert "not held: 2.0 of the proxy" in told
    assert ("broken promise: slow" in told) == bool(broken)
