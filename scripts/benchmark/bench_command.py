"""What the commands of `bench` share: the values of their options, a folder that goes with them, and how they end."""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

import psutil

from .bench_candidates import CandidateFailed
from .bench_load import WrongAnswer
from .bench_sockets import NotServed

T = TypeVar("T")


def some_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """For argparse: comma-separated names, each of which is known."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return names

    return read


def positive_int(text: str) -> int:
    """For argparse."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def positive_float(text: str) -> float:
    """For argparse. Infinity and NaN are refused too: nothing could be scaled by them."""
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def machine() -> str:
    """What a reader needs to compare with his own numbers; no names."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def machine_of(rounds: int) -> str:
    """The line above a table of medians."""
    return f"Machine: {machine()}, load {os.getloadavg()[0]:.1f}; clients and server run on it too. Medians of {rounds} rounds."


def tell(line: str) -> None:
    """How a measurement goes on, beside its result."""
    print(line, file=sys.stderr, flush=True)


def measured(measure: Callable[[Path], T]) -> T:
    """What was measured with a folder that is there as long. Raises: SystemExit, with 2 and the failure told."""
    try:
        with tempfile.TemporaryDirectory(prefix="mcp-gateway-bench-") as folder:
            return measure(Path(folder))
    except (CandidateFailed, NotServed, WrongAnswer, RuntimeError, OSError, http.client.HTTPException) as failure:
        tell(f"bench: {failure}")
        raise SystemExit(2) from failure


def scaled_parser(name: str, doc: str | None, scaled: str) -> argparse.ArgumentParser:
    """With the options of a benchmark in rounds. name: its option of `bench`; scaled: what `--scale` makes more or fewer of."""
    parser = argparse.ArgumentParser(prog=f"bench {name}", description=doc)
    parser.add_argument("--rounds", type=positive_int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--scale", type=positive_float, default=1.0, help=f"of {scaled} (default 1)")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is broken")
    return parser


def told(
    options: argparse.Namespace,
    measure: Callable[[argparse.Namespace, Path], list[T]],
    table: Callable[[list[T]], str],
    broken: Callable[[list[T]], Iterable[str]],
    missed: Callable[[list[T]], Iterable[str]] = lambda _: (),
) -> int:
    """Measure rows in rounds, print their table, and return the exit code. Raises: as `measured`."""
    rows = measured(lambda scratch: measure(options, scratch))
    print(f"{machine_of(options.rounds)}\n\n{table(rows)}")
    return verdict(broken(rows), missed(rows), is_checked=options.check)


def verdict(broken: Iterable[str], missed: Iterable[str] = (), *, is_checked: bool) -> int:
    """The exit code. broken: promises that did not hold; missed: aims that nobody promises yet."""
    for line in missed:
        tell(f"not held: {line}")
    lines = list(broken)
    for line in lines:
        tell(f"broken promise: {line}")
    return 1 if lines and is_checked else 0
