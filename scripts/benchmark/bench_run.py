"""The benchmark: the backend itself, a bare Tornado proxy and the gateway in three sizes, in interleaved rounds.

Every number of its tables was measured in the same run on the same machine; read ratios rather than rates.
"""

from __future__ import annotations

import argparse
import pstats
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from types import FrameType

import attrs

from .bench_candidates import Candidate, Running, candidates
from .bench_command import machine, measured, positive_int, some_of, tell, verdict
from .bench_load import LEGACY, MODERN, find_wrk, run_wrk
from .bench_report import Record, broken_promises, load_table, not_held, resource_table

_WARM_UP_S = 1
_SETTLE_S = 1.0
_ERAS = {MODERN: "", LEGACY: ", sessions"}
"""{revision: what stands behind the title of a candidate}"""
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    names = [candidate.name for candidate in candidates()]
    parser.add_argument("--rounds", type=positive_int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=positive_int, default=5, help="length of one run of wrk (default 5)")
    parser.add_argument("--connections", type=_counts, default=[1, 32, 128], help="comma-separated (default 1,32,128)")
    parser.add_argument("--only", type=some_of(names), default=names, help=f"comma-separated, of {', '.join(names)}")
    parser.add_argument("--eras", type=some_of(_ERAS), default=[*_ERAS], help=f"comma-separated, of {', '.join(_ERAS)}")
    parser.add_argument(
        "--starts", type=positive_int, default=3, help="starts of each candidate, for its start-up time (default 3)"
    )
    parser.add_argument("--output", type=Path, help="file for the tables; default: standard output")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is broken")
    parser.add_argument("--profile", type=Path, help="profile the embedded gateway into this file (py-spy, or cProfile)")
    return parser.parse_args(arguments)


def _counts(text: str) -> list[int]:
    return [positive_int(each) for each in text.split(",")]


def measure(options: argparse.Namespace, scratch: Path) -> list[Record]:
    """Start everything, load it in turns, weigh it, and stop it.

    Raises: CandidateFailed, WrongAnswer, RuntimeError (of wrk).
    """
    py_spy = shutil.which("py-spy")
    c_profile = options.profile if options.profile and not py_spy else None
    chosen = [candidate for candidate in candidates(c_profile) if candidate.name in options.only]
    records = {
        (candidate.name, era): Record(name=candidate.name, title=candidate.title + _ERAS[era], era=era)
        for era in options.eras
        for candidate in chosen
    }
    first_era = options.eras[0]
    with ExitStack() as stack:
        backend = Running(candidates()[0], 0, scratch / "backend")
        stack.callback(backend.stop)
        running: dict[str, Running] = {}
        for candidate in chosen:
            running[candidate.name] = _start(candidate, backend, scratch, options.starts, records[candidate.name, first_era])
            stack.callback(_stop, running[candidate.name])
        for started in running.values():
            started.check(legacy=first_era != MODERN)
        time.sleep(_SETTLE_S)
        for name, started in running.items():
            records[name, first_era].idle_pss_bytes = started.pss_bytes()
            records[name, first_era].process_count = len(started.processes())
        for started in running.values():
            run_wrk(started.port, connections=32, seconds=_WARM_UP_S, legacy=first_era != MODERN, scratch=scratch)
        if options.profile and py_spy and "embedded" in running:
            stack.callback(_record_with_py_spy(py_spy, running["embedded"].pid, options.profile))
        names = list(running)
        for round_number in range(options.rounds):
            for era, connections in product(options.eras, options.connections):
                # Whoever comes first differs from round to round: a machine that warms up or throttles favours nobody.
                for name in names[round_number % len(names) :] + names[: round_number % len(names)]:
                    port, cpu_s = running[name].port, running[name].cpu_s()
                    legacy = era != MODERN
                    run = run_wrk(port, connections=connections, seconds=options.seconds, legacy=legacy, scratch=scratch)
                    run = attrs.evolve(run, cpu_s=running[name].cpu_s() - cpu_s)
                    records[name, era].runs.setdefault(connections, []).append(run)
                    tell(
                        f"round {round_number + 1}/{options.rounds} {name:>8} {era} {connections:>4} connections: "
                        f"{run.requests_per_second:8.0f}/s p50 {run.latency_ms['p50']:.2f} p99 {run.latency_ms['p99']:.2f} ms, "
                        f"{run.cpu_us:.0f} us of CPU" + (f", {run.failed} FAILED" if run.failed else "")
                    )
        time.sleep(_SETTLE_S)
        for name, started in running.items():
            started.check(legacy=options.eras[-1] != MODERN)
            records[name, first_era].loaded_pss_bytes = started.pss_bytes()
    return list(records.values())


def _start(candidate: Candidate, backend: Running, scratch: Path, starts: int, record: Record) -> Running:
    """Start it as often as wished; the last one stays."""
    for number in range(starts):
        started = Running(candidate, backend.port, scratch / f"{candidate.name}-{number}")
        record.startups_s.append(started.startup_s)
        tell(f"{candidate.name} answered after {started.startup_s:.2f} s")
        if number < starts - 1:
            _stop(started)
    return started


def _stop(running: Running) -> None:
    leftovers = running.stop()
    if leftovers:
        tell(f"{running.candidate.name} left {len(leftovers)} processes behind; they were killed")


def _record_with_py_spy(py_spy: str, pid: int, output: Path) -> Callable[[], None]:
    recorder = subprocess.Popen([py_spy, "record", "--pid", str(pid), "--output", str(output), "--format", "speedscope"])

    def finish() -> None:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(30)

    return finish


def report(records: list[Record], options: argparse.Namespace, wrk_version: str) -> str:
    eras = {MODERN: "stateless", LEGACY: "with sessions"}
    load = "one `tools/call` each, " + " and ".join(f"{era} {eras[era]}" for era in options.eras)
    return "\n\n".join(
        (
            f"Machine: {machine()}; load and backend run on it too. {wrk_version}, {load}; "
            f"medians of {options.rounds} interleaved rounds of {options.seconds} s.",
            load_table(records, options.connections),
            resource_table(records),
            "Memory is PSS over all processes.",
        )
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Unwind once; a second Ctrl-C must not keep the first from stopping what was started."""
    for again in _INTERRUPTS:
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    options = parse()
    wrk_version = find_wrk()
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        records = measured(lambda scratch: measure(options, scratch))
    except KeyboardInterrupt:
        tell("bench: interrupted; everything it started has been stopped")
        return 130
    text = report(records, options, wrk_version)
    if options.output:
        options.output.write_text(text + "\n")
    else:
        print(text)
    if options.profile and options.profile.exists() and not shutil.which("py-spy"):
        pstats.Stats(str(options.profile), stream=sys.stderr).sort_stats("tottime").print_stats(40)
    return verdict(broken_promises(records), not_held(records), is_checked=options.check)


if __name__ == "__main__":
    sys.exit(main())
