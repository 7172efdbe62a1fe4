"""When which fault meets whom, as the dice fall. Pure."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any, Protocol

import attrs

from .fault_kinds import FaultKind


class Dice(Protocol):
    """What is drawn from: `random.Random(seed)`, so that the same seed gives the same faults."""

    def choice(self, seq: Sequence[str], /) -> str: ...

    def randrange(self, start: int, /) -> int: ...

    def uniform(self, a: float, b: float, /) -> float: ...

    def shuffle(self, x: MutableSequence[Any], /) -> None: ...


@attrs.frozen(kw_only=True)
class Planned:
    """at_s: since the beginning of the run. lasts_s: until its cause is taken away."""

    fault_id: int
    kind: FaultKind
    target: str
    at_s: float
    lasts_s: float


def plan(
    dice: Dice, seconds: float, kinds: Sequence[FaultKind], cells: int, *, each_s: float, warm_up_s: float, rest_s: float
) -> list[Planned]:
    """Faults one after the other at random distances of `each_s` on average, none in the first `warm_up_s` and the last `rest_s`.

    Each kind has its turn before any comes again, so that a short run has met most of them; they overlap as their times let them.
    """
    planned: list[Planned] = []
    deck: list[FaultKind] = []
    at_s = warm_up_s
    while kinds and at_s < seconds - rest_s:
        if not deck:
            deck = [*kinds]
            dice.shuffle(deck)
        kind = deck.pop()
        target = dice.choice(kind.targets).replace("*", str(dice.randrange(max(1, cells))))
        lasts_s = round(dice.uniform(*kind.lasts_s), 3)
        planned.append(Planned(fault_id=len(planned) + 1, kind=kind, target=target, at_s=round(at_s, 3), lasts_s=lasts_s))
        at_s += dice.uniform(0.5, 1.5) * each_s
    return planned
