"""Whether a recorded history of reads and compare-and-sets of one key could have come from one key. Pure.

Source: Wing and Gong, "Testing and Verifying Concurrent Objects", 1993; with the memory of states seen of Lowe, "Testing for
linearizability", 2017. Each operation must seem to have happened at one moment between its beginning and its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs


@attrs.frozen
class Operation:
    """One read, or one compare-and-set that was carried out or may have been.

    began_s, ended_s: on one clock. ended_s is infinite where nobody knows whether, and when, it was carried out.
    before: what the key held as it began, "" for nothing. after: what it held then; of a read, the same.
    """

    began_s: float
    ended_s: float
    before: str
    after: str

    @property
    def is_certain(self) -> bool:
        return self.ended_s < math.inf


def unexplained(history: Sequence[Operation], first: str = "") -> tuple[Operation, ...]:
    """Operations one of which must have been wrong; none where an order explains all of the history.

    first: what the key held before all of it.
    """
    operations = sorted(history, key=lambda operation: operation.began_s)
    certain = sum(1 << index for index, operation in enumerate(operations) if operation.is_certain)
    seen: set[tuple[int, str]] = set()
    farthest: tuple[int, tuple[Operation, ...]] = (-1, ())
    waiting = [(0, first)]
    while waiting:
        done, held = waiting.pop()
        if (done, held) in seen:
            continue
        seen.add((done, held))
        if done & certain == certain:
            return ()
        next_ones = _next_ones(operations, done)
        if (depth := (done & certain).bit_count()) > farthest[0]:
            farthest = (depth, tuple(operations[index] for index in next_ones if operations[index].is_certain))
        # The earliest last, so that it is tried first: histories are nearly in order.
        waiting += [
            (done | 1 << index, operations[index].after) for index in reversed(next_ones) if operations[index].before == held
        ]
    return farthest[1]


def _next_ones(operations: Sequence[Operation], done: int) -> list[int]:
    """Those that may be the next: they began before any of the others that are left had ended."""
    first_end_s = math.inf
    found: list[int] = []
    for index, operation in enumerate(operations):
        if operation.began_s > first_end_s:
            break
        if not done >> index & 1:
            found.append(index)
            first_end_s = min(first_end_s, operation.ended_s)
    return [index for index in found if operations[index].began_s <= first_end_s]
