"""What the nodes of a cluster have written of owners in their logs, and whether it keeps the promise: one owner at a time. Pure.

Each line has "owner-record" and JSON after it. Times are on the clock that all nodes of one machine share.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .linearizability import Operation, unexplained

_MARK: Final = "owner-record {"
_IS_OVER: Final = frozenset({"acquired", "released", "refused"})


def read_history(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The records of all nodes, in any order. A line that a killed process has not finished is left out."""
    found: list[dict[str, Any]] = []
    for line in lines:
        start = line.find(_MARK)
        if start < 0:
            continue
        try:
            record, _ = json.JSONDecoder().raw_decode(line[start + len(_MARK) - 1 :].replace('\\"', '"'))
        except json.JSONDecodeError:
            continue
        found.append(record)
    return found


def broken_promises(records: Iterable[dict[str, Any]], ended_s: dict[str, float] | None = None) -> list[str]:
    """What is wrong with a history, one line each.

    ended_s: {node: when all of it was killed}: what it used then it has left, and could not say so.
    """
    by_thing: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_thing[record["thing"]].append(record)
    found: list[str] = []
    for thing, history in sorted(by_thing.items()):
        found += (f"{thing}: {text}" for text in _of_records(history))
        found += (f"{thing}: {text}" for text in _of_uses(history, ended_s or {}))
    return found


def _of_records(history: list[dict[str, Any]]) -> Iterator[str]:
    over = {(record["claim"], record["tried"]): record for record in history if record["event"] in _IS_OVER}
    reads = [record for record in history if record["event"] == "read"]
    tries = [record for record in history if record["event"] == "trying"]
    operations = [Operation(read["began_s"], read["ended_s"], read["claim"], read["claim"]) for read in reads]
    operations += [each for record in tries if (each := _written(record, over.get((record["claim"], record["tried"]))))]
    if wrong := unexplained(operations):
        yield f"no order of its operations explains one of {', '.join(map(str, wrong))}"
    taken = sorted((record for record in history if record["event"] == "acquired"), key=lambda record: float(record["ended_s"]))
    for before, after in itertools.pairwise(taken):
        if after["began_s"] > before["ended_s"] and after["fence"] <= before["fence"]:
            yield f"token {after['fence']} of {after['node']} follows token {before['fence']} of {before['node']}"


def _written(trying: dict[str, Any], over: dict[str, Any] | None) -> Operation | None:
    """over: how it has ended, None where the node was not told, or was killed first.

    None for one that was refused: it has changed nothing, and anything that happened meanwhile may have been why.
    """
    if over is not None and over["event"] == "refused":
        return None
    ended_s = math.inf if over is None else over["ended_s"]
    return Operation(trying["began_s"], ended_s, trying["before"], "" if trying["tried"] == "released" else trying["claim"])


def _of_uses(history: list[dict[str, Any]], ended_s: dict[str, float]) -> Iterator[str]:
    """Whoever uses a thing has got it, and everybody before has left it, or may not use it any more.

    A node whose processes were all stopped and go on says late that it has left: what counts is the end of its lease.
    """
    tokens = {(record["node"], record["fence"]) for record in history if record["event"] == "acquired"}
    left = {
        (record["node"], record["fence"], record["use"]): min(record["ended_s"], record["lease_until_s"])
        for record in history
        if record["event"] == "left"
    }
    uses = sorted((record for record in history if record["event"] == "used"), key=lambda record: float(record["began_s"]))
    last: dict[str, Any] | None = None
    last_end_s = -math.inf
    for use in uses:
        if (use["node"], use["fence"]) not in tokens:
            yield f"{use['node']} uses it under token {use['fence']}, which it never got"
        if use["began_s"] < last_end_s and last is not None:
            yield f"{use['node']} uses it while {last['node']} does (tokens {use['fence']} and {last['fence']})"
        if last is not None and use["fence"] < last["fence"]:
            yield f"{use['node']} uses it under token {use['fence']} after {last['fence']}"
        end_s = left.get((use["node"], use["fence"], use["use"]), ended_s.get(use["node"], math.inf))
        if end_s >= last_end_s:
            last, last_end_s = use, end_s
