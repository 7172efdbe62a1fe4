"""What the tries of one attack have shown, and how that is kept in a file. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import attrs

from tests.attacks.attack import Attack
from tests.end_to_end.running_gateway import Form

MEGABYTE: Final = 1_000_000
MOST_MEMORY_BYTES: Final = 30 * MEGABYTE
"""Above idle, after the tries of one attack. Source: ours, the promise of README."""
MOST_DESCRIPTORS: Final = 16
"""More than before: connections to servers that are kept for the next call."""
MOST_SERIES: Final = 120
"""More than before: a reason, a method and a backend that are counted for the first time, in buckets."""
MOST_SLOWER: Final = 2.0
"""The 99th percentile of others' calls during the attack, of the usual one. Source: ours, the promise of README."""
_QUIET_CORES = 0.25
"""What strangers may use of the machine, for others' times to say anything of the attack."""


@attrs.frozen(kw_only=True)
class Cost:
    """What the tries of one attack have cost, more than before it. held: at their end, with all that they leave open."""

    held_bytes: int
    left_bytes: int
    descriptors: int
    series: int

    def problems(self) -> list[str]:
        found = []
        if self.left_bytes > MOST_MEMORY_BYTES:
            found.append(f"{self.left_bytes / MEGABYTE:.0f} MB more memory than before")
        if self.descriptors > MOST_DESCRIPTORS:
            found.append(f"{self.descriptors} more descriptors than before")
        if self.series > MOST_SERIES:
            found.append(f"{self.series} more series of metrics than before")
        return found


@attrs.frozen(kw_only=True)
class Finding:
    """How the tries of one attack over one transport went.

    reads:     {what the attacker read: in how many tries}.
    problems:  of the ordinary client, of the gateway and of what is read; empty for an attack that is held.
    usual_s, meanwhile_s: the 99th percentile of the ordinary client's calls while nothing is attacked and during the attack; 0
               where that was not measured.
    took_s:    all tries. cpu_s: of processors that the gateway has used meanwhile.
    strangers: cores of the machine that went to processes which have nothing to do with it, meanwhile.
    """

    form: Form
    attack: Attack
    transport: str
    tries: int
    reads: Mapping[str, int]
    problems: tuple[str, ...]
    cost: Cost
    usual_s: float
    meanwhile_s: float
    took_s: float
    cpu_s: float
    strangers: float

    @property
    def case(self) -> tuple[str, str, str]:
        """Which it is, among all that are carried out."""
        return self.form, self.attack.name, self.transport

    @property
    def slower(self) -> float:
        """How much longer others waited than usually; 0 where that was not measured."""
        return self.meanwhile_s / self.usual_s if self.usual_s else 0.0

    @property
    def is_disturbed(self) -> bool:
        """Whether others' times tell of the machine's other work instead of the attack."""
        return self.strangers > _QUIET_CORES

    @property
    def harm(self) -> tuple[str, ...]:
        """What the attack has done to others; how long they waited is judged where the machine was quiet."""
        if self.is_disturbed or self.slower <= MOST_SLOWER:
            return self.problems
        return (*self.problems, f"others waited {self.slower:.1f} times as long: {self.meanwhile_s * 1_000:.0f} ms")

    def line(self) -> str:
        """For `read_lines`."""
        values = attrs.asdict(self, filter=lambda field, _: field.name != "attack")
        return json.dumps({**values, "attack": self.attack.name})


def read_lines(lines: Iterable[str], attacks: Iterable[Attack]) -> list[Finding]:
    """The findings that were written, the last one of each case; those of attacks that are none any more are left out.

    Raises: ValueError for a line that is no finding.
    """
    known = {attack.name: attack for attack in attacks}
    return list({finding.case: finding for finding in _read(lines, known)}.values())


def _read(lines: Iterable[str], known: Mapping[str, Attack]) -> Iterator[Finding]:
    for number, line in enumerate(lines, start=1):
        try:
            values: dict[str, Any] = json.loads(line)
            if values["attack"] in known:
                values |= {
                    "attack": known[values["attack"]],
                    "cost": Cost(**values["cost"]),
                    "problems": tuple(values["problems"]),
                }
                yield Finding(**values)
        except (KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"line {number} is no finding: {problem!r}") from problem
